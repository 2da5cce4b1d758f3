"""Packed matrices as modules: their buffers are all that is kept, their rows are dequantised when asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import nn

from testbed.quantization.affine import Grid, Quantised, dequantise
from testbed.quantization.formats import OUTLIERS, ROWS_PER_BUNDLE, WeightFormat
from testbed.quantization.packing import pack, unpack

FP8_LARGEST = 448.0  # of e4m3


class Store(nn.Module, ABC):
    """A matrix [R, C] in a format; subclasses know how rows come out of their buffers."""

    def __init__(self, fmt: WeightFormat, rows: int, columns: int) -> None:
        super().__init__()
        self.format, self.rows, self.columns = fmt, rows, columns

    @abstractmethod
    def dequantised(self, start: int, stop: int) -> torch.Tensor:
        """Rows [start, stop) as float32 [stop - start, C]; `start` is a multiple of 8."""

    @abstractmethod
    def gather(self, rows_N: torch.Tensor) -> torch.Tensor:
        """Single rows by their numbers, float32 [N, C]."""

    def stored_bytes(self) -> int:
        """Bytes of the tensors that are there."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def _keep(self, **buffers: torch.Tensor) -> None:
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer.contiguous())

    def _held(self, name: str) -> torch.Tensor:
        return cast(torch.Tensor, self._buffers[name])


class AffineStore(Store):
    """Codes [B, Q, C] and zero points [B, Q, G] packed to bytes, scales [R, G] in half precision."""

    def __init__(self, fmt: WeightFormat, quantised: Quantised) -> None:
        assert not fmt.outliers, "a matrix with outlier channels takes a MixedStore"
        super().__init__(fmt, *quantised.codes.shape)
        self._keep(codes=pack(quantised.codes, fmt.bits), scales=quantised.grid.scales)
        if fmt.has_zero_points:
            self._keep(zeros=pack(quantised.grid.zeros, fmt.bits))

    def dequantised(self, start: int, stop: int) -> torch.Tensor:
        bundles = slice(start // ROWS_PER_BUNDLE, -(-stop // ROWS_PER_BUNDLE))
        codes_RC = unpack(self._held("codes")[bundles], stop - start)
        zeros_RG = unpack(self._held("zeros")[bundles], stop - start) if self.format.has_zero_points else None
        return dequantise(codes_RC, self._held("scales")[start:stop], zeros_RG, self.format)

    def gather(self, rows_N: torch.Tensor) -> torch.Tensor:
        codes_NC = self._pick("codes", rows_N)
        zeros_NG = self._pick("zeros", rows_N) if self.format.has_zero_points else None
        return dequantise(codes_NC, self._held("scales")[rows_N], zeros_NG, self.format)

    def _pick(self, name: str, rows_N: torch.Tensor) -> torch.Tensor:
        bundles_NQC = self._held(name)[rows_N // ROWS_PER_BUNDLE]
        codes = unpack(bundles_NQC, bundles_NQC.shape[0] * ROWS_PER_BUNDLE)
        first = torch.arange(rows_N.shape[0], device=rows_N.device) * ROWS_PER_BUNDLE
        return codes[first + rows_N % ROWS_PER_BUNDLE]


class Fp8Store(Store):
    """Weights [R, C] as e4m3 with one half-precision scale a row: max|w| becomes 448."""

    def __init__(self, fmt: WeightFormat, weight_RC: torch.Tensor) -> None:
        super().__init__(fmt, *weight_RC.shape)
        weight_RC = weight_RC.float()
        scales = (weight_RC.abs().amax(1, keepdim=True) / FP8_LARGEST).clamp(min=2.0**-24).half()
        scaled = (weight_RC / scales.float()).clamp(-FP8_LARGEST, FP8_LARGEST)
        self._keep(codes=scaled.to(torch.float8_e4m3fn), scales=scales)

    def dequantised(self, start: int, stop: int) -> torch.Tensor:
        return self._held("codes")[start:stop].float() * self._held("scales")[start:stop].float()

    def gather(self, rows_N: torch.Tensor) -> torch.Tensor:
        codes = self._held("codes").view(torch.uint8)[rows_N].view(torch.float8_e4m3fn)
        return codes.float() * self._held("scales")[rows_N].float()


class MixedStore(Store):
    """Two matrices side by side [R, C - K] and [R, K], each in its own format: the outlier channels are the last K."""

    def __init__(self, fmt: WeightFormat, body: Store, outliers: Store) -> None:
        super().__init__(fmt, body.rows, body.columns + outliers.columns)
        self.body, self.outliers = body, outliers

    def dequantised(self, start: int, stop: int) -> torch.Tensor:
        return torch.cat([self.body.dequantised(start, stop), self.outliers.dequantised(start, stop)], dim=1)

    def gather(self, rows_N: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.body.gather(rows_N), self.outliers.gather(rows_N)], dim=1)


def empty_store(fmt: WeightFormat, rows: int, columns: int) -> Store:
    """A store of the right sizes without content, to be filled from a file."""
    if fmt.outliers:
        body = empty_store(fmt.body, rows, fmt.body_columns(columns))
        return MixedStore(fmt, body, empty_store(OUTLIERS, rows, fmt.outliers))
    if fmt.kind == "e4m3":
        return Fp8Store(fmt, torch.zeros(rows, columns))
    grid = Grid(
        scales=torch.zeros(rows, fmt.groups(columns), dtype=torch.float16),
        zeros=torch.zeros(rows, fmt.groups(columns), dtype=torch.uint8),
    )
    return AffineStore(fmt, Quantised(codes=torch.zeros(rows, columns, dtype=torch.uint8), grid=grid))
