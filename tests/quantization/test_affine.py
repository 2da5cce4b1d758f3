"""Grids and codes against torchao's primitives, and within half a step of the weight."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from testbed.core.errors import ModelError
from testbed.quantization.affine import LEAST_SCALE, Grid, choose_grid, dequantise, quantise, spread
from testbed.quantization.formats import BITS, GROUP_SIZES, WeightFormat

ROWS, COLUMNS = 24, 256


def weights(seed: int, rows: int = ROWS, columns: int = COLUMNS) -> torch.Tensor:
    """Normal weights, one column in 16 ten times as large, one row of a single sign, one of zeros."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02
    weight[:, ::16] *= 10
    weight[1] = weight[1].abs()
    weight[2] = 0
    return weight


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group", [*GROUP_SIZES, None])
@pytest.mark.parametrize("symmetric", [False, True])
def test_equal_to_torchao(bits: int, group: int | None, symmetric: bool) -> None:
    """Scales, zero points, codes and dequantised weights, every one of them."""
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it talks about CUDA libraries that it does not need here
    primitives = pytest.importorskip(
        "torchao.quantization.quant_primitives", reason="needs torchao, which is not installed"
    )
    weight, fmt = weights(bits), WeightFormat(bits=bits, group_size=group, symmetric=symmetric)
    block = (1, group or COLUMNS)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    kind = primitives.MappingType.SYMMETRIC if symmetric else primitives.MappingType.ASYMMETRIC
    kinds = {"scale_dtype": torch.float16, "zero_point_dtype": torch.int32, "eps": LEAST_SCALE}
    scales, zeros = primitives.choose_qparams_affine(weight, kind, block, torch.int32, low, high, **kinds)
    codes = primitives.quantize_affine(weight, block, scales.float(), zeros, torch.int32, low, high)
    back = primitives.dequantize_affine(codes, block, scales.float(), zeros, torch.int32, low, high)
    own = quantise(weight, choose_grid(weight, fmt), fmt)
    assert torch.equal(own.grid.scales, scales.view(own.grid.scales.shape))
    assert torch.equal(own.grid.zeros.int() + low, zeros.view(own.grid.zeros.shape))
    assert torch.equal(own.codes.int() + low, codes)
    zeros_RG = None if symmetric else own.grid.zeros
    assert torch.equal(dequantise(own.codes, own.grid.scales, zeros_RG, fmt), back)


def _step(grid: Grid, fmt: WeightFormat, columns: int) -> torch.Tensor:
    return spread(grid.scales, columns, fmt).float()


@given(
    bits=st.sampled_from(BITS),
    group=st.sampled_from([*GROUP_SIZES, None]),
    columns=st.integers(128, 200),
    seed=st.integers(0, 2**16),
)
def test_no_weight_moves_further_than_its_step_allows(bits: int, group: int | None, columns: int, seed: int) -> None:
    """Half a step by rounding; at the ends another half of zero-point rounding, and the scale's own half precision."""
    weight, fmt = weights(seed, 9, columns), WeightFormat(bits=bits, group_size=group)
    own = quantise(weight, choose_grid(weight, fmt), fmt)
    error = (dequantise(own.codes, own.grid.scales, own.grid.zeros, fmt) - weight).abs()
    step = _step(own.grid, fmt, columns)
    assert (error <= step * (1.0 + 2**bits * 2.0**-11) + 2**bits * LEAST_SCALE).all()
    inside = (own.codes > 0) & (own.codes < 2**bits - 1)
    assert (error[inside] <= (step * 0.5001).expand_as(error)[inside]).all()


@pytest.mark.parametrize("symmetric", [False, True])
def test_zero_is_a_value_of_every_grid(symmetric: bool) -> None:
    weight, fmt = weights(5), WeightFormat(bits=3, group_size=32, symmetric=symmetric)
    weight[:, 3] = 0
    own = quantise(weight, choose_grid(weight, fmt), fmt)
    back = dequantise(own.codes, own.grid.scales, own.grid.zeros, fmt)
    assert (back[:, 3] == 0).all()
    assert (back[2] == 0).all()


def test_a_shorter_last_group_has_a_grid_of_its_own_columns() -> None:
    weight, fmt = weights(6, 8, 72), WeightFormat(bits=4, group_size=32)
    alone = choose_grid(weight[:, 64:], WeightFormat(bits=4))
    grid = choose_grid(weight, fmt)
    assert torch.equal(grid.scales[:, 2:], alone.scales)
    assert torch.equal(grid.zeros[:, 2:], alone.zeros)


def test_more_bits_lose_less() -> None:
    weight = weights(7)
    errors = []
    for bits in BITS:
        fmt = WeightFormat(bits=bits, group_size=32)
        own = quantise(weight, choose_grid(weight, fmt), fmt)
        errors.append(float((dequantise(own.codes, own.grid.scales, own.grid.zeros, fmt) - weight).square().mean()))
    assert errors == sorted(errors, reverse=True)


def test_weights_beyond_half_precision_are_refused() -> None:
    with pytest.raises(ModelError, match="too large for a half-precision scale"):
        choose_grid(torch.full((2, 32), 1e9), WeightFormat(bits=4))
