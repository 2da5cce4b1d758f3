"""Rayleigh fading: many reflections and no line of sight."""

from __future__ import annotations

from typing import Literal

from testbed.core.portable import exponential
from testbed.network_models.rates.fading import BlockFading, FadingConfig


class RayleighRate(BlockFading):
    """Block fading without a line of sight: |h|^2 ~ Exp(1)."""

    class Config(FadingConfig):
        kind: Literal["rayleigh"] = "rayleigh"

    def gain(self, block: int) -> float:
        return exponential(self._stream, self._entity, block)
