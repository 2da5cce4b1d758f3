"""Rounded inputs against torchao's primitives; each token by itself, and only in the layers that are meant."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from testbed.core.errors import ModelError
from testbed.quantization.activations import LEAST_SCALE, round_inputs
from testbed.quantization.apply import quantise_module
from testbed.quantization.calibrate import collect
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import BITS, GROUP_SIZES, ActivationFormat, format_of
from testbed.quantization.packed import PackedLinear

TOKENS, CHANNELS = 24, 256


def inputs(seed: int, tokens: int = TOKENS, channels: int = CHANNELS) -> torch.Tensor:
    """Normal inputs with outlier channels, a token of one sign and one of zeros."""
    x = torch.randn(tokens, channels, generator=torch.Generator().manual_seed(seed))
    x[:, ::16] *= 20
    x[1] = x[1].abs()
    x[2] = 0
    return x


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group", [*GROUP_SIZES, None])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("clip", [1.0, 0.9])
def test_equal_to_torchao(bits: int, group: int | None, symmetric: bool, clip: float) -> None:
    """Grids are chosen from the clipped range, every value is then rounded on them: each of them exactly."""
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it talks about CUDA libraries that it does not need here
    primitives = pytest.importorskip(
        "torchao.quantization.quant_primitives", reason="needs torchao, which is not installed"
    )
    x, half = inputs(bits), 2 ** (bits - 1)
    low, high = (-half, half - 1) if symmetric else (0, 2**bits - 1)
    kind = primitives.MappingType.SYMMETRIC if symmetric else primitives.MappingType.ASYMMETRIC
    block, least = (1, group or CHANNELS), 1 - half if symmetric else low
    kinds = {"scale_dtype": torch.float32, "zero_point_dtype": torch.int32, "eps": LEAST_SCALE}
    scales, zeros = primitives.choose_qparams_affine(x * clip, kind, block, torch.int32, least, high, **kinds)
    codes = primitives.quantize_affine(x, block, scales, zeros, torch.int32, low, high)
    expected = primitives.dequantize_affine(codes, block, scales, zeros, torch.int32, low, high)
    found = round_inputs(x, ActivationFormat(bits=bits, group_size=group, symmetric=symmetric, clip=clip))
    assert torch.equal(found, expected)


@given(
    bits=st.sampled_from(BITS),
    group=st.sampled_from([*GROUP_SIZES, None]),
    symmetric=st.booleans(),
    channels=st.integers(128, 200),
    seed=st.integers(0, 2**16),
)
def test_a_token_is_rounded_by_itself_to_few_values(
    bits: int, group: int | None, symmetric: bool, channels: int, seed: int
) -> None:
    """Neighbours don't matter, an integer grid has its 2^Q values at most, and no value moves by more than a step."""
    x, fmt = inputs(seed, 5, channels), ActivationFormat(bits=bits, group_size=group, symmetric=symmetric)
    together = round_inputs(x[None], fmt)[0]
    alone = torch.cat([round_inputs(token, fmt)[None] for token in x])
    assert torch.equal(together, alone)
    for start in range(0, channels, group or channels):
        part, rounded = (item[:, start : start + (group or channels)] for item in (x, together))
        spans = 2 * part.abs().amax(1) if symmetric else part.amax(1).clamp(min=0) - part.amin(1).clamp(max=0)
        steps = spans[:, None] / (2**bits - (2 if symmetric else 1))
        assert ((rounded - part).abs() <= steps * 1.0001).all()
        assert all(len(token.unique()) <= 2**bits for token in rounded)
    assert (together[2] == 0).all()


def test_half_precision_stays_half_precision() -> None:
    x = inputs(3).bfloat16()
    found = round_inputs(x, ActivationFormat(bits=8))
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, round_inputs(x.float(), ActivationFormat(bits=8)).bfloat16())


class _Stack(torch.nn.Module):
    """Two numbered blocks of one linear layer each, and a head."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(8)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(CHANNELS, CHANNELS) for _ in range(2)])
        self.lm_head = torch.nn.Linear(CHANNELS, 40)
        for part in (*self.layers, self.lm_head):
            part.weight.data = torch.randn(part.weight.shape, generator=generator) * 0.05

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(x)


FRONT, BACK = ActivationFormat(bits=8), ActivationFormat(bits=4, group_size=32, symmetric=False, clip=0.9)


def _by_hand(stack: _Stack, weights: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    for layer, weight, fmt in zip(stack.layers, weights, (FRONT, BACK), strict=True):
        x = functional.linear(round_inputs(x, fmt), weight, layer.bias)
    return stack.lm_head(x)


def test_without_packed_weights_only_inputs_are_rounded() -> None:
    """Front bits before the change point, back bits behind it, the head's input as it is."""
    stack, x = _Stack(), inputs(5)
    expected = _by_hand(stack, [layer.weight for layer in stack.layers], x)
    quantise_module(stack, WeightConfig(split=1, front_inputs=FRONT, back_inputs=BACK))
    assert torch.equal(stack(x), expected)


@pytest.mark.parametrize("method", ["rtn", "gptq", "fp8", "smoothquant"])
def test_every_method_multiplies_what_was_rounded(method: str) -> None:
    stack, x = _Stack(), inputs(6)
    seen = collect(stack, lambda: stack(inputs(7, 400)))
    fmt = format_of(method, 8, group_size=None, symmetric=True)
    config = WeightConfig(method=method, split=1, front=fmt, back=fmt, front_inputs=FRONT, back_inputs=BACK)
    quantise_module(stack, config, statistics=seen)
    for layer, inputs_fmt in zip(stack.layers, (FRONT, BACK), strict=True):
        assert isinstance(layer, PackedLinear)
        smooth = torch.ones(CHANNELS) if layer.smooth is None else layer.smooth
        weight = layer.store.dequantised(0, CHANNELS)
        assert torch.equal(layer(x), functional.linear(round_inputs(x / smooth, inputs_fmt), weight, layer.bias))


def test_smoothquant_rounds_to_eight_bits_unless_told_otherwise() -> None:
    fmt = format_of("smoothquant", 8, group_size=None, symmetric=True)
    config = WeightConfig(method="smoothquant", split=1, front=fmt, back_inputs=BACK)
    assert config.inputs_of_layer(0) == ActivationFormat(bits=8)
    assert config.inputs_of_layer(1) == BACK
    assert WeightConfig(method="smoothquant", split=1, back=fmt).inputs_of_layer(0) is None


def test_progress_counts_every_matrix() -> None:
    calls: list[tuple[int, int]] = []
    config = WeightConfig(split=1, front=format_of("rtn", 4, group_size=64, symmetric=False))
    quantise_module(_Stack(), config, progress=lambda done, count: calls.append((done, count)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("fmt", "expected"),
    [
        (ActivationFormat(bits=7), "no such activation bits .*got 7"),
        (ActivationFormat(bits=8, group_size=48), "no such group size .*got 48"),
        (ActivationFormat(bits=8, clip=0.0), "no such share of their range .*got 0.0"),
        (ActivationFormat(bits=8, clip=float("nan")), "no such share of their range"),
    ],
)
def test_formats_that_do_not_fit(fmt: ActivationFormat, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        quantise_module(_Stack(), WeightConfig(split=1, front_inputs=fmt))


def test_a_group_longer_than_the_input_is_refused() -> None:
    with pytest.raises(ModelError, match=r"longer than a row .*got 128.*null for one grid a token"):
        ActivationFormat(bits=8, group_size=128).check(columns=[200, 100])
