"""Packed keys and values: bits against numpy's, grids against torchao's primitives, what saturates and what is NaN."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from testbed.core.errors import ModelError
from testbed.models.kv_format import KV_BITS, KVFormat
from testbed.models.kv_packing import decode, encode, pack, unpack

TOKENS, HEADS, HEAD_DIM = 5, 4, 24


def states(seed: int, tokens: int = TOKENS) -> torch.Tensor:
    """Normal numbers; an outlier channel, a head of one sign, a head of zeros."""
    found = torch.randn(tokens, HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(seed))
    found[:, 0, 3] *= 40
    found[:, 1] = found[:, 1].abs() + 2
    found[:, 2] = 0
    return found


@given(st.sampled_from(KV_BITS), st.integers(1, 4), st.integers(1, 70), st.integers(0, 2**16))
def test_a_row_is_the_stream_of_its_codes_bits(bits: int, rows: int, columns: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, size=(rows, columns), dtype=np.uint8)
    lowest_first = (codes[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
    expected = np.packbits(lowest_first.reshape(rows, columns * bits), axis=1, bitorder="little")
    packed = pack(torch.from_numpy(codes), bits)
    assert np.array_equal(packed.numpy(), expected)
    assert np.array_equal(unpack(packed, columns, bits).numpy(), codes)


@pytest.mark.parametrize("bits", KV_BITS)
def test_equal_to_torchao_per_token_and_head(bits: int) -> None:
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it talks about CUDA libraries that it does not need here
    primitives = pytest.importorskip(
        "torchao.quantization.quant_primitives", reason="needs torchao, which is not installed"
    )
    found, fmt = states(bits), KVFormat(bits=bits)
    block, most = (1, 1, HEAD_DIM), 2**bits - 1
    kinds = {"scale_dtype": torch.float16, "zero_point_dtype": torch.int32, "eps": 2.0**-24}
    kind = primitives.MappingType.ASYMMETRIC
    scales, zeros = primitives.choose_qparams_affine(found, kind, block, torch.int32, 0, most, **kinds)
    codes = primitives.quantize_affine(found, block, scales.float(), zeros, torch.int32, 0, most)
    back = primitives.dequantize_affine(codes, block, scales.float(), zeros, torch.int32, 0, most)
    records, own_scales = encode(found, fmt)
    own = unpack(records, HEADS * (HEAD_DIM + 1), bits).view(TOKENS, HEADS, HEAD_DIM + 1)
    assert torch.equal(own_scales, scales.view(TOKENS, HEADS))
    assert torch.equal(own[..., -1].int(), zeros.view(TOKENS, HEADS))
    assert torch.equal(own[..., :-1].int(), codes)
    assert torch.equal(decode(records, own_scales, HEAD_DIM, fmt), back)


@given(st.sampled_from(KV_BITS), st.integers(0, 2**16), st.permutations(range(6)))
def test_a_tokens_codes_are_its_own(bits: int, seed: int, order: list[int]) -> None:
    """Whoever its neighbours are, and alone."""
    found, fmt = states(seed, 6), KVFormat(bits=bits)
    together = encode(found, fmt)
    for parts in (
        encode(found[order], fmt),
        [torch.cat(both) for both in zip(*(encode(found[i : i + 1], fmt) for i in order), strict=True)],
    ):
        for expected, got in zip(together, parts, strict=True):
            assert torch.equal(expected[order], got)


def test_zeros_stay_zeros_and_what_is_no_number_stays_none() -> None:
    found, fmt = states(1), KVFormat(bits=4)
    found[0, 0, 5] = torch.nan
    back = decode(*encode(found, fmt), HEAD_DIM, fmt)
    assert (back[:, 2] == 0).all()
    assert back[0, 0].isnan().all()
    assert not back[1:].isnan().any()
    assert not back[0, 1:].isnan().any()


def test_what_half_precision_cannot_span_saturates() -> None:
    fmt, most = KVFormat(bits=8), 65504.0 * 255
    found = torch.tensor([[[0.0, 1e9]], [[0.0, -torch.inf]]])
    back = decode(*encode(found, fmt), 2, fmt)
    assert back[:, 0, 0].tolist() == [0, 0]
    assert back[:, 0, 1].tolist() == [most, -most]


@pytest.mark.parametrize("bits", [0, 1, 7, 16])
def test_widths_that_there_are_none_of(bits: int) -> None:
    with pytest.raises(ModelError, match=r"no such KV bits.*2, 3, 4, 5, 6, 8"):
        KVFormat(bits=bits).check()
