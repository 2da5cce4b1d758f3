"""Atom: which channels are outliers, what both parts are rounded to, what is held, and what it is good for."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from testbed.core.errors import ModelError
from testbed.models.shard import Shard
from testbed.models.source import from_folder
from testbed.quantization.activations import round_inputs
from testbed.quantization.affine import LEAST_SCALE
from testbed.quantization.apply import quantise_module
from testbed.quantization.atom import Atom
from testbed.quantization.calibrate import InputStatistics, collect
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import ActivationFormat, WeightFormat, format_of
from testbed.quantization.packed import PackedLinear
from testbed.quantization.rtn import Rtn, nearest_store
from testbed.quantization.targets import find_targets
from tests.quantization.stories import read, stories

ROWS, COLUMNS, OUTLIERS, GROUP = 48, 160, 8, 64
LOUD = [150, 3, 77, 20, 41, 101, 9, 64]  # channels with large inputs
ATOM = Atom(WeightConfig(method="atom", split=0))


def _inputs(num: int, seed: int) -> torch.Tensor:
    """Correlated inputs, rank 24 of 160 and noise, with eight loud channels of different strengths."""
    mixing = torch.randn(24, COLUMNS, generator=torch.Generator().manual_seed(99))
    own = torch.Generator().manual_seed(seed)
    x = torch.randn(num, 24, generator=own) @ mixing + 0.3 * torch.randn(num, COLUMNS, generator=own)
    x[:, LOUD] *= torch.linspace(20, 60, len(LOUD))
    return x


WEIGHT = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(4)) * 0.05
SEEN, HELD_OUT = _inputs(512, 1), _inputs(256, 2)


def fmt_of(bits: int, group: int | None = GROUP, symmetric: bool = True) -> WeightFormat:
    return format_of("atom", bits, group_size=group, symmetric=symmetric, outliers=OUTLIERS)


def _pack(fmt: WeightFormat, gram: torch.Tensor | None = None) -> PackedLinear:
    gram = SEEN.T @ SEEN if gram is None else gram
    return ATOM.pack(WEIGHT, None, fmt, InputStatistics(gram=gram, largest=gram.diagonal(), num_rows=512))


def _parts(layer: PackedLinear) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The order, and the stored weights of the body and of the outliers."""
    assert layer.order is not None
    weight = layer.store.dequantised(0, ROWS)
    return layer.order.long(), weight[:, :-OUTLIERS], weight[:, -OUTLIERS:]


def test_published_settings_are_the_defaults() -> None:
    fmt = format_of("atom", 4, group_size=128, symmetric=True)
    assert (fmt.outliers, fmt.clip) == (128, 0.85)


def test_outliers_are_the_channels_with_the_largest_square_sums() -> None:
    order, _, _ = _parts(_pack(fmt_of(4)))
    assert sorted(order.tolist()) == list(range(COLUMNS))
    sums = SEEN.square().sum(0)[order]
    assert (sums[1:] >= sums[:-1] * 0.9999).all()
    assert set(order[-OUTLIERS:].tolist()) == set(LOUD)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("group", [32, 64, 128, None])
@pytest.mark.parametrize("symmetric", [False, True])
def test_bytes_are_two_matrices_and_the_order(bits: int, group: int | None, symmetric: bool) -> None:
    """Read from the storages, against sums by hand; rows come in whole bundles here."""
    layer, fmt = _pack(fmt_of(bits, group, symmetric)), fmt_of(bits, group, symmetric)
    tensors = {item.untyped_storage().data_ptr(): item.untyped_storage().nbytes() for item in layer.buffers()}
    groups = {32: 5, 64: 3, 128: 2, None: 1}[group]
    side_bits = 16 if symmetric else 16 + bits
    body, outliers = ROWS * 152 * bits + ROWS * groups * side_bits, ROWS * 8 * 8 + ROWS * 16
    assert sum(tensors.values()) * 8 == body + outliers + COLUMNS * 32
    assert fmt.matrix_bits(ROWS, COLUMNS) == fmt.stored_bytes(ROWS, COLUMNS) * 8 == sum(tensors.values()) * 8


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("symmetric", [False, True])
def test_uncorrelated_inputs_give_torchaos_values(bits: int, symmetric: bool) -> None:
    """With a diagonal Hessian no column makes up for another: both parts are rounded to nearest, the body clipped."""
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it talks about CUDA libraries that it does not need here
    primitives = pytest.importorskip(
        "torchao.quantization.quant_primitives", reason="needs torchao, which is not installed"
    )
    order, body, outliers = _parts(_pack(fmt_of(bits, 32, symmetric), torch.diag(SEEN.square().sum(0))))

    def nearest(weight: torch.Tensor, group: int, bits: int, is_symmetric: bool, clip: float) -> torch.Tensor:
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_symmetric else (0, 2**bits - 1)
        kind = primitives.MappingType.SYMMETRIC if is_symmetric else primitives.MappingType.ASYMMETRIC
        options = {"scale_dtype": torch.float16, "zero_point_dtype": torch.int32, "eps": LEAST_SCALE}
        grid = primitives.choose_qparams_affine(weight * clip, kind, (1, group), torch.int32, low, high, **options)
        scales, zeros = grid[0].float(), grid[1]
        codes = primitives.quantize_affine(weight, (1, group), scales, zeros, torch.int32, low, high)
        return primitives.dequantize_affine(codes, (1, group), scales, zeros, torch.int32, low, high)

    ordered = WEIGHT[:, order]
    whole_groups = 128  # torchao takes no shorter last group
    expected = nearest(ordered[:, :whole_groups].contiguous(), 32, bits, symmetric, 0.85)
    assert torch.equal(body[:, :whole_groups], expected)
    last = nearest(ordered[:, whole_groups:-OUTLIERS].contiguous(), 24, bits, symmetric, 0.85)
    assert torch.equal(body[:, whole_groups:], last)
    assert torch.equal(outliers, nearest(ordered[:, -OUTLIERS:].contiguous(), OUTLIERS, 8, True, 1.0))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_gptq_within_loses_less_than_rounding_within(bits: int) -> None:
    """On inputs that it was not calibrated on; the same channels are outliers, the same ranges clipped."""
    expected = functional.linear(HELD_OUT, WEIGHT)
    rounded = _pack(fmt_of(bits), torch.diag(SEEN.square().sum(0)))
    losses = [float((layer(HELD_OUT) - expected).square().mean()) for layer in (_pack(fmt_of(bits)), rounded)]
    assert losses[0] < 0.5 * losses[1]


def test_inputs_are_ordered_then_rounded_part_by_part() -> None:
    layer, x = _pack(fmt_of(4)), HELD_OUT[:7].view(1, 7, COLUMNS)
    plain = functional.linear(x, layer.dequantised())
    assert float((layer(x) - plain).abs().max() / plain.abs().max()) < 1e-6
    layer.inputs = ActivationFormat(bits=4, group_size=32, clip=0.9)
    order, body, outliers = _parts(layer)
    few = round_inputs(x[..., order[:-OUTLIERS]], layer.inputs)
    many = round_inputs(x[..., order[-OUTLIERS:]], ActivationFormat(bits=8))
    assert torch.equal(layer(x), functional.linear(torch.cat([few, many], -1), torch.cat([body, outliers], 1)))


def test_w4a4_survives_loud_channels_only_with_outliers_kept_apart() -> None:
    expected, inputs = functional.linear(HELD_OUT, WEIGHT), ActivationFormat(bits=4, group_size=32, clip=0.9)
    plain = Rtn(WeightConfig(split=0)).pack(WEIGHT, None, WeightFormat(bits=4, group_size=32, symmetric=True), None)
    losses = []
    for layer in (_pack(fmt_of(4, 32)), plain):
        layer.inputs = inputs
        losses.append(float((layer(HELD_OUT) - expected).square().mean()))
    assert losses[0] < 0.1 * losses[1]


def test_every_block_comes_closer_than_rounding_on_text_it_has_not_seen(data_dir: Path) -> None:
    """stories260K at 3 bits with 8 outliers: each matrix's error on held-out stories against rounding to nearest.

    The yardstick keeps the same outliers at the same bits, rounded to nearest in the same order.
    """
    source = from_folder(data_dir / "stories260K" / "hf")
    tokens, exact = stories(source, data_dir), Shard(source, start=0, stop=5)
    seen = collect(exact.module, lambda: read(exact, tokens[:24]))
    held_out = collect(exact.module, lambda: read(exact, tokens[24:]))
    weights = {target.key: target.weight for target in find_targets(exact.module)}
    fmt = format_of("atom", 3, group_size=32, symmetric=True, outliers=OUTLIERS)
    shard = Shard(source, start=0, stop=5)
    quantise_module(shard.module, WeightConfig(method="atom", split=5, front=fmt), statistics=seen)
    blocks = torch.zeros(5, 2)
    for path, part in shard.module.named_modules():
        if isinstance(part, PackedLinear):
            assert part.order is not None
            key, order = path.split("layers.", 1)[1], part.order.long()
            body, outliers = weights[key][:, order[:-OUTLIERS]], weights[key][:, order[-OUTLIERS:]]
            stores = nearest_store(body, fmt.body), nearest_store(outliers, WeightFormat(bits=8, symmetric=True))
            rounded = torch.empty_like(weights[key])
            rounded[:, order] = torch.cat([store.dequantised(0, len(body)) for store in stores], 1)
            for place, found in enumerate((part.dequantised(), rounded)):
                wrong = found - weights[key]
                blocks[int(key.split(".")[0]), place] += torch.einsum("rc,cd,rd->", wrong, held_out[key].gram, wrong)
    assert (blocks[:, 0] < 0.85 * blocks[:, 1]).all()


class _Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(COLUMNS, ROWS)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[0](x)


@pytest.mark.parametrize(
    ("fmt", "expected"),
    [
        (WeightFormat(bits=4, outliers=160), r"outlier_channels: .*got 160\); allowed: 1 to 159"),
        (WeightFormat(bits=4, outliers=-1), r"outlier_channels: .*got -1\)"),
        (WeightFormat(bits=4), r"outlier_channels: atom keeps outlier channels"),
        (WeightFormat(bits=4, outliers=100, group_size=64), r"longer than a row .*got 64\); allowed: at most 60"),
        (WeightFormat(bits=4, outliers=8, clip=0.0), r"no such share of their range .*got 0\.0"),
        (WeightFormat(bits=7, outliers=8), r"no such weight bits .*got 7"),
    ],
)
def test_what_does_not_fit_is_refused(fmt: WeightFormat, expected: str) -> None:
    block = _Block()
    seen = collect(block, lambda: block(SEEN))
    with pytest.raises(ModelError, match=expected):
        quantise_module(block, WeightConfig(method="atom", split=1, front=fmt), statistics=seen)


def test_activation_groups_fit_what_is_left_beside_the_outliers() -> None:
    block, inputs = _Block(), ActivationFormat(bits=4, group_size=128)
    config = WeightConfig(method="atom", split=1, front=fmt_of(4), front_inputs=inputs)
    quantise_module(block, config, statistics=collect(block, lambda: block(SEEN)))
    config, block = replace(config, front=WeightFormat(bits=4, outliers=40)), _Block()
    seen = collect(block, lambda: block(SEEN))
    with pytest.raises(ModelError, match=r"longer than a row .*got 128\); allowed: at most 120"):
        quantise_module(block, config, statistics=seen)


def test_weights_that_are_no_numbers_and_too_little_text_are_refused() -> None:
    block, config = _Block(), WeightConfig(method="atom", split=1, front=fmt_of(4))
    with pytest.raises(ModelError, match="atom needs calibration text for every layer"):
        quantise_module(block, config)
    with pytest.raises(ModelError, match="calibration text is too short"):
        collect(block, lambda: block(SEEN[:63]))
    seen = collect(block, lambda: block(SEEN))
    block.layers[0].weight.data[3, 5] = float("nan")
    with pytest.raises(ModelError, match="NaN or infinite"):
        quantise_module(block, config, statistics=seen)
