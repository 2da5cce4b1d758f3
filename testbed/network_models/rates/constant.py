"""A rate that never changes."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from testbed.network_models.origin import Origin
from testbed.network_models.rates.segments import FOREVER, Segment
from testbed.scenarios.base import BitRate
from testbed.scenarios.pieces import RateConfig


class ConstantRate:
    """The same at every instant."""

    class Config(RateConfig):
        kind: Literal["constant"] = "constant"
        rate: BitRate

    __slots__ = ("_segment",)

    _segment: Segment

    def __new__(cls, config: Config, origin: Origin) -> ConstantRate:
        """Links of one rate share it: it has no state."""
        return _constant(config.rate)

    def segment(self, time_ns: int) -> Segment:
        return self._segment


@lru_cache(maxsize=256)
def _constant(rate_bps: int) -> ConstantRate:
    rate = object.__new__(ConstantRate)
    rate._segment = Segment(rate_bps, FOREVER)
    return rate
