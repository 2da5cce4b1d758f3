"""Rician fading: a line of sight and reflections."""

from __future__ import annotations

import math
from typing import Literal

from testbed.core.portable import from_decibels, normal_pair
from testbed.network_models.origin import Origin
from testbed.network_models.rates.fading import BlockFading, FadingConfig
from testbed.scenarios.base import Decibels


class RicianRate(BlockFading):
    """Block fading with a line of sight.

    h = sqrt(K / (K + 1)) + a complex normal of power 1 / (K + 1): K is the steady over the scattered power.
    """

    class Config(FadingConfig):
        kind: Literal["rician"] = "rician"
        k_factor: Decibels

    def __init__(self, config: Config, origin: Origin) -> None:
        k = from_decibels(config.k_factor)
        self._steady, self._scattered = math.sqrt(k / (k + 1)), math.sqrt(0.5 / (k + 1))
        super().__init__(config, origin)

    def gain(self, block: int) -> float:
        x, y = normal_pair(self._stream, self._entity, block)
        real, imaginary = self._steady + self._scattered * x, self._scattered * y
        return real * real + imaginary * imaginary
