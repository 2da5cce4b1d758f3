"""Calibrated methods against round to nearest, on inputs that they were not calibrated on."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from testbed.core.errors import ModelError
from testbed.quantization.affine import Grid, Quantised, choose_grid, dequantise, quantise
from testbed.quantization.calibrate import InputStatistics, collect
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import WeightFormat, format_of, inputs_of
from testbed.quantization.gptq import gptq
from testbed.quantization.smoothquant import SmoothQuant, smooth_factors

COLUMNS, ROWS = 160, 48


def _inputs(num: int, seed: int) -> torch.Tensor:
    """Correlated inputs with two outlier channels: rank 24 of 160 and noise."""
    generator = torch.Generator().manual_seed(99)
    mixing = torch.randn(24, COLUMNS, generator=generator)
    own = torch.Generator().manual_seed(seed)
    x = torch.randn(num, 24, generator=own) @ mixing + 0.3 * torch.randn(num, COLUMNS, generator=own)
    x[:, [5, 77]] *= 30
    return x


WEIGHT = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(4)) * 0.05
SEEN, HELD_OUT = _inputs(512, 1), _inputs(256, 2)


def _error(found: Quantised, fmt: WeightFormat) -> float:
    back = dequantise(found.codes, found.grid.scales, found.grid.zeros, fmt)
    return float((functional.linear(HELD_OUT, back) - functional.linear(HELD_OUT, WEIGHT)).square().mean())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [32, 64, None])
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_gptq_loses_less_than_rounding_on_held_out_inputs(
    bits: int, group: int | None, act_order: bool, symmetric: bool
) -> None:
    fmt = WeightFormat(bits=bits, group_size=group, symmetric=symmetric)
    plain = _error(quantise(WEIGHT, choose_grid(WEIGHT, fmt), fmt), fmt)
    assert _error(gptq(WEIGHT, SEEN.T @ SEEN, fmt, act_order=act_order), fmt) < 0.7 * plain


def test_gptq_is_rounding_where_inputs_are_uncorrelated() -> None:
    """With a diagonal Hessian no column can make up for another."""
    fmt = WeightFormat(bits=4, group_size=32)
    plain = quantise(WEIGHT, choose_grid(WEIGHT, fmt), fmt)
    for act_order in (False, True):
        found = gptq(WEIGHT, torch.diag(torch.linspace(1, 9, COLUMNS)), fmt, act_order=act_order)
        assert torch.equal(found.codes, plain.codes)
        assert torch.equal(found.grid.scales, plain.grid.scales)


def test_gptq_solves_two_columns_as_by_hand() -> None:
    """The first column's error, over U_11, times U_12: with H = [[2, 1], [1, 2]] half of it goes to the second."""
    weight = torch.tensor([[0.4, 1.0, 15.0, 0.0]])
    gram = torch.eye(4) * 2.0
    gram[0, 1] = gram[1, 0] = 1.0
    fmt = WeightFormat(bits=4)  # steps of one: 0 ... 15
    damped = 2.0 * 1.01
    found = gptq(weight, gram, fmt, act_order=False)
    assert found.codes[0, 0] == 0
    assert found.codes[0, 1] == round(1.0 + 0.4 / damped) == 1
    weight[0, 1] = 1.35
    assert gptq(weight, gram, fmt, act_order=False).codes[0, 1] == round(1.35 + 0.4 / damped) == 2
    assert quantise(weight, choose_grid(weight, fmt), fmt).codes[0, 1] == 1


def test_columns_the_text_never_touched_become_zero() -> None:
    gram = SEEN.T @ SEEN
    gram[9], gram[:, 9] = 0, 0
    fmt = WeightFormat(bits=4)
    found = gptq(WEIGHT, gram, fmt, act_order=False)
    assert (dequantise(found.codes, found.grid.scales, found.grid.zeros, fmt)[:, 9] == 0).all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.85, 1.0])
def test_smoothing_alone_changes_nothing(alpha: float) -> None:
    factors = smooth_factors(SEEN.abs().amax(0), WEIGHT, alpha)
    expected = functional.linear(HELD_OUT, WEIGHT)
    smoothed = functional.linear(HELD_OUT / factors, WEIGHT * factors)
    assert float((smoothed - expected).abs().max() / expected.abs().max()) < 1e-5
    assert factors.std() > 0


def test_smoothing_halves_the_loss_of_w8a8_where_inputs_have_outliers() -> None:
    fmt = format_of("smoothquant", 8, group_size=None, symmetric=True)
    seen = InputStatistics(gram=SEEN.T @ SEEN, largest=SEEN.abs().amax(0), num_rows=len(SEEN))
    bare = InputStatistics(gram=seen.gram, largest=torch.ones(COLUMNS), num_rows=len(SEEN))
    expected = functional.linear(HELD_OUT, WEIGHT)
    config = WeightConfig(method="smoothquant", split=0)
    losses = []
    for found in (seen, bare):
        layer = SmoothQuant(config).pack(WEIGHT, None, fmt, found)
        layer.inputs = inputs_of("smoothquant")
        losses.append(float((layer(HELD_OUT) - expected).square().mean()))
    assert losses[0] < 0.5 * losses[1]


class _Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(COLUMNS, ROWS)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[0](x)


def test_statistics_are_the_moments_of_what_entered() -> None:
    block = _Block()

    def read() -> None:
        for part in SEEN.split(100):
            block(part[None])

    (found,) = collect(block, read).values()
    assert found.num_rows == len(SEEN)
    torch.testing.assert_close(found.gram, SEEN.T @ SEEN, rtol=1e-4, atol=1e-1)
    assert torch.equal(found.largest, SEEN.abs().amax(0))
    assert not block.layers[0]._forward_pre_hooks


def test_calibration_refuses_too_little_text_and_values_that_are_not_finite() -> None:
    block = _Block()
    with pytest.raises(ModelError, match="calibration text is too short"):
        collect(block, lambda: block(SEEN[:20]))
    with pytest.raises(ModelError, match="not finite"):
        collect(block, lambda: block(SEEN * float("inf")))


def _by_elimination(gram: torch.Tensor, fmt: WeightFormat) -> Quantised:
    """GPTQ as derived: no factors, no blocks; the inverse Hessian loses a column's row and column when it is done."""
    weight, hessian = WEIGHT.double().clone(), gram.double()
    inverse = torch.linalg.inv(hessian + 0.01 * hessian.diagonal().mean() * torch.eye(COLUMNS))
    width = fmt.group_size or COLUMNS
    codes, scales, zeros = [], [], []
    for column in range(COLUMNS):
        if column % width == 0:
            group = weight[:, column : column + width]
            grid = choose_grid(group, WeightFormat(bits=fmt.bits, symmetric=fmt.symmetric))
            scales.append(grid.scales)
            zeros.append(grid.zeros)
        scale, zero = grid.scales[:, 0].double(), grid.zeros[:, 0].double()
        code = (torch.round(weight[:, column] / scale) + zero).clamp(0, 2**fmt.bits - 1)
        error = (weight[:, column] - (code - zero) * scale) / inverse[column, column]
        weight -= torch.outer(error, inverse[column])
        inverse = inverse - torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]
        codes.append(code.to(torch.uint8))
    return Quantised(codes=torch.stack(codes, 1), grid=Grid(scales=torch.cat(scales, 1), zeros=torch.cat(zeros, 1)))


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("group", [32, 64, None])
def test_gptq_gives_the_codes_of_a_textbook_elimination(bits: int, group: int | None) -> None:
    """Over 160 columns, which is more than a block. A tie may fall the other way by rounding and pull a few along."""
    fmt = WeightFormat(bits=bits, group_size=group)
    gram = SEEN.T @ SEEN
    found, expected = gptq(WEIGHT, gram, fmt, act_order=False), _by_elimination(gram, fmt)
    assert torch.equal(found.grid.scales, expected.grid.scales)
    assert float((found.codes != expected.codes).float().mean()) < 0.002
