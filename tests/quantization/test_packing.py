"""Codes come back as they went in, and take the bytes that the law says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from testbed.core.errors import ModelError
from testbed.quantization.formats import BITS, GROUP_SIZES, WeightFormat, format_of
from testbed.quantization.packing import pack, unpack


@given(bits=st.sampled_from(BITS), rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 2**16))
def test_every_code_comes_back_and_no_bit_is_wasted(bits: int, rows: int, columns: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, size=(rows, columns), dtype=np.uint8)
    packed = pack(torch.from_numpy(codes), bits)
    assert np.array_equal(unpack(packed, rows).numpy(), codes)
    assert packed.untyped_storage().nbytes() * 8 == -(-rows // 8) * 8 * columns * bits


@pytest.mark.parametrize("bits", BITS)
def test_packed_bytes_are_the_codes_one_after_the_other(bits: int) -> None:
    """Against a bit string written by hand: code 0 in the lowest bits."""
    codes = [(37 * place + 11) % 2**bits for place in range(8)]
    number = sum(code << place * bits for place, code in enumerate(codes))
    packed = pack(torch.tensor(codes, dtype=torch.uint8)[:, None], bits)
    assert bytes(packed.ravel().tolist()) == number.to_bytes(bits, "little")


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group", [*GROUP_SIZES, None])
def test_bits_of_a_matrix_are_the_methods_law(bits: int, group: int | None) -> None:
    """B_w = P Q + (P / g)(16 + Q), written out."""
    rows, columns = 256, 512
    weights, width = rows * columns, group or columns
    asymmetric = WeightFormat(bits=bits, group_size=group)
    assert asymmetric.matrix_bits(rows, columns) == weights * bits + weights // width * (16 + bits)
    assert asymmetric.stored_bytes(rows, columns) * 8 == asymmetric.matrix_bits(rows, columns)
    symmetric = WeightFormat(bits=bits, group_size=group, symmetric=True)
    assert symmetric.matrix_bits(rows, columns) == weights * bits + weights // width * 16


def test_a_group_size_that_does_not_divide_a_row_has_a_shorter_last_group() -> None:
    assert WeightFormat(bits=4, group_size=32).matrix_bits(8, 72) == 8 * 72 * 4 + 8 * 3 * 20


@pytest.mark.parametrize(
    ("fmt", "columns", "problem"),
    [
        (WeightFormat(bits=7), [64], "no such weight bits"),
        (WeightFormat(bits=4, group_size=48), [96], "no such group size"),
        (WeightFormat(bits=4, group_size=64), [128, 32], "longer than a row"),
        (WeightFormat(bits=4, kind="e4m3"), [64], "FP8 is 8 bits"),
    ],
)
def test_formats_that_fit_nothing_are_refused(fmt: WeightFormat, columns: list[int], problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        fmt.check(columns=columns)


@pytest.mark.parametrize("method", ["fp8", "smoothquant"])
def test_methods_of_one_format_take_no_other(method: str) -> None:
    assert format_of(method, 8, group_size=None, symmetric=False).bits == 8
    for bits, group in ((4, None), (8, 64)):
        with pytest.raises(ModelError, match="has one format"):
            format_of(method, bits, group_size=group, symmetric=False)
