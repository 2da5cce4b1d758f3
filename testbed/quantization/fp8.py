"""FP8: weights as 8-bit floats (e4m3, OCP) with one scale a row; needs no text. Activations stay as they are."""

from __future__ import annotations

import torch

from testbed.quantization.calibrate import InputStatistics
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import WeightFormat
from testbed.quantization.packed import PackedLinear
from testbed.quantization.stores import Fp8Store


class Fp8:
    """Three bits of mantissa for every magnitude, where an integer grid has one step for all."""

    needs_text = False

    def __init__(self, config: WeightConfig) -> None:
        self._config = config

    def pack(
        self, weight_RC: torch.Tensor, bias: torch.Tensor | None, fmt: WeightFormat, seen: InputStatistics | None
    ) -> PackedLinear:
        """One linear layer; `seen` is not used."""
        return PackedLinear(Fp8Store(fmt, weight_RC), bias)
