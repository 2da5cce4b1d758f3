"""Round to nearest: every weight to the closest value of its group's grid; needs no text."""

from __future__ import annotations

import torch

from testbed.quantization.affine import choose_grid, quantise
from testbed.quantization.calibrate import InputStatistics
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import WeightFormat
from testbed.quantization.packed import PackedLinear
from testbed.quantization.stores import AffineStore


class Rtn:
    """The plain choice, and the yardstick of all others."""

    needs_text = False

    def __init__(self, config: WeightConfig) -> None:
        self._config = config

    def pack(
        self, weight_RC: torch.Tensor, bias: torch.Tensor | None, fmt: WeightFormat, seen: InputStatistics | None
    ) -> PackedLinear:
        """One linear layer; `seen` is not used."""
        return PackedLinear(nearest_store(weight_RC, fmt), bias)


def nearest_store(weight_RC: torch.Tensor, fmt: WeightFormat) -> AffineStore:
    """A matrix rounded to nearest; also what token tables and LM heads get under every method."""
    return AffineStore(fmt, quantise(weight_RC, choose_grid(weight_RC, fmt), fmt))
