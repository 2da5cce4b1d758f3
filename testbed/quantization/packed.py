"""Layers that compute from packed weights and never keep a full-precision copy.

A product runs tile by tile: at most `TILE_WEIGHTS` weights are dequantised at a time and dropped after use. A matrix
of one tile gives exactly what `torch.nn.functional.linear` gives on the dequantised weight; more tiles are blocks of
its output, equal up to the order of sums inside the library's product.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from testbed.quantization.activations import round_mixed
from testbed.quantization.formats import ROWS_PER_BUNDLE, ActivationFormat
from testbed.quantization.stores import Store

TILE_WEIGHTS = 2**22  # 16 MiB of float32


class PackedLinear(nn.Module):
    """y = x W^T + b with a packed W [out, in]; x [..., in].

    Computes in the input's dtype. Where there are such, the input is first divided by `smooth` [in], then taken in the
    `order` [in] of the store's columns, then rounded as `inputs` says, outlier channels to 8 bits.
    """

    bias: torch.Tensor | None
    smooth: torch.Tensor | None
    order: torch.Tensor | None
    inputs: ActivationFormat | None

    def __init__(
        self,
        store: Store,
        bias: torch.Tensor | None,
        *,
        smooth: torch.Tensor | None = None,
        order: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.store = store
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.register_buffer("smooth", smooth)
        self.register_buffer("order", order)
        self.inputs = None

    @property
    def in_features(self) -> int:
        return self.store.columns

    @property
    def out_features(self) -> int:
        return self.store.rows

    def dequantised(self) -> torch.Tensor:
        """The whole weight as it acts on the layer's input, float32 [out, in]: a copy, for tests and tables."""
        weight = self.store.dequantised(0, self.store.rows)
        if self.order is not None:
            weight = torch.empty_like(weight).index_copy(1, self.order.long(), weight)
        return weight if self.smooth is None else weight / self.smooth

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.smooth is not None:
            x = x / self.smooth.to(x.dtype)
        if self.order is not None:
            x = x.index_select(-1, self.order)
        if self.inputs is not None:
            x = round_mixed(x, self.inputs, self.store.format.outliers)
        tiles = [
            functional.linear(x, self.store.dequantised(start, stop).to(x.dtype), self._bias(start, stop, x.dtype))
            for start, stop in _tiles(self.store.rows, self.store.columns)
        ]
        return tiles[0] if len(tiles) == 1 else torch.cat(tiles, dim=-1)

    def _bias(self, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor | None:
        return None if self.bias is None else self.bias[start:stop].to(dtype)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, {self.store.format}"


class PackedEmbedding(nn.Module):
    """Rows of a packed table by token id, in `dtype`, times `scale` (Gemma's; 1 elsewhere)."""

    def __init__(self, store: Store, *, dtype: torch.dtype, scale: torch.Tensor | None = None) -> None:
        super().__init__()
        self.store, self._dtype = store, dtype
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = self.store.gather(ids.reshape(-1)).to(self._dtype).view(*ids.shape, self.store.columns)
        scale = self._buffers["scale"]
        return rows if scale is None else rows * scale.to(self._dtype)


def _tiles(rows: int, columns: int) -> list[tuple[int, int]]:
    """Whole bundles of rows, at most TILE_WEIGHTS weights each."""
    height = max(1, TILE_WEIGHTS // (ROWS_PER_BUNDLE * columns)) * ROWS_PER_BUNDLE
    return [(start, min(start + height, rows)) for start in range(0, rows, height)]
