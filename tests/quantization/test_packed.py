"""Packed layers compute what the dequantised weight computes, from the bytes that the law allows and no others."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from testbed.quantization import packed
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import BITS, WeightFormat
from testbed.quantization.fp8 import Fp8
from testbed.quantization.packed import PackedEmbedding, PackedLinear
from testbed.quantization.rtn import Rtn, nearest_store

RTN, FP8 = Rtn(WeightConfig(split=0)), Fp8(WeightConfig(split=0))


def _random(*sizes: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def _held_bytes(module: torch.nn.Module) -> int:
    """Of every storage behind the module's tensors."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum({item.untyped_storage().data_ptr(): item.untyped_storage().nbytes() for item in tensors}.values())


def _formats() -> list[WeightFormat]:
    affine = [
        WeightFormat(bits=bits, group_size=group, symmetric=symmetric)
        for bits in BITS
        for group, symmetric in ((32, False), (64, True), (None, False))
    ]
    return [*affine, WeightFormat(bits=8, kind="e4m3", symmetric=True)]


def _pack(weight: torch.Tensor, bias: torch.Tensor | None, fmt: WeightFormat) -> PackedLinear:
    return (FP8 if fmt.kind == "e4m3" else RTN).pack(weight, bias, fmt, None)


@pytest.mark.parametrize("fmt", _formats(), ids=str)
@pytest.mark.parametrize("rows", [48, 51])
def test_a_layer_holds_the_bytes_of_the_law(fmt: WeightFormat, rows: int) -> None:
    layer = _pack(_random(rows, 96), None, fmt)
    assert _held_bytes(layer) == fmt.stored_bytes(rows, 96)
    law_bytes = fmt.matrix_bits(rows, 96) / 8
    padding = 0 if rows % 8 == 0 or fmt.kind == "e4m3" else (56 - 51) * fmt.bits * (96 + fmt.groups(96)) / 8
    assert _held_bytes(layer) <= law_bytes + padding
    assert _held_bytes(layer) >= law_bytes


@pytest.mark.parametrize("fmt", _formats(), ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_tile_is_the_plain_product_bit_for_bit(fmt: WeightFormat, dtype: torch.dtype) -> None:
    layer = _pack(_random(40, 96), _random(40, seed=2), fmt)
    x = _random(2, 7, 96, seed=3).to(dtype)
    expected = functional.linear(x, layer.dequantised().to(dtype), _random(40, seed=2).to(dtype))
    assert torch.equal(layer(x), expected)


def test_tiles_are_blocks_of_the_same_product(monkeypatch: pytest.MonkeyPatch) -> None:
    fmt = WeightFormat(bits=5, group_size=32)
    layer, x = _pack(_random(45, 96), _random(45, seed=2), fmt), _random(7, 96, seed=3)
    whole = layer(x)
    monkeypatch.setattr(packed, "TILE_WEIGHTS", 16 * 96)
    asked: list[tuple[int, int]] = []
    dequantised = layer.store.dequantised
    monkeypatch.setattr(
        layer.store, "dequantised", lambda start, stop: asked.append((start, stop)) or dequantised(start, stop)
    )
    torch.testing.assert_close(layer(x), whole, rtol=1e-5, atol=1e-5)
    assert asked == [(0, 16), (16, 32), (32, 45)]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("rows", [64, 61])
def test_an_embedding_gives_the_rows_of_its_table(bits: int, rows: int) -> None:
    table = PackedEmbedding(
        nearest_store(_random(rows, 40), WeightFormat(bits=bits, group_size=32)), dtype=torch.float32
    )
    ids = torch.tensor([[0, rows - 1, 7], [8, 8, 31]])
    assert torch.equal(table(ids), table.store.dequantised(0, rows)[ids])


def test_fp8_is_torchs_own_rounding() -> None:
    weight = _random(8, 96)
    layer = _pack(weight, None, WeightFormat(bits=8, kind="e4m3", symmetric=True))
    scale = (weight.abs().amax(1, keepdim=True) / 448).half().float()
    expected = (weight / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
    assert torch.equal(layer.dequantised(), expected)
    assert ((layer.dequantised() - weight).abs() <= weight.abs() * 2**-4 + scale * 2**-10).all()  # 3 bits of mantissa
