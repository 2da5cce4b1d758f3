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

    def __init__(self, config: Config, origin: Origin) -> None:
        self._segment = _segment(config.rate)

    def segment(self, time_ns: int) -> Segment:
        return self._segment


@lru_cache(maxsize=256)  # links of one profile share it
def _segment(rate_bps: int) -> Segment:
    return Segment(rate_bps, FOREVER)
