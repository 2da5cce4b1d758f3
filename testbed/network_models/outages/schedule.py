"""Outages at known times."""

from __future__ import annotations

from bisect import bisect_right
from typing import Annotated, Literal

from pydantic import Field

from testbed.network_models.origin import Origin
from testbed.network_models.outages.gaps import Gap
from testbed.network_models.rates.segments import FOREVER
from testbed.scenarios.base import Block, PositiveTimeNs, TimeNs
from testbed.scenarios.pieces import OutageConfig


class Times(Block):
    """One outage."""

    start: TimeNs
    duration: PositiveTimeNs


class ScheduledOutages:
    """At listed times, in any order; where they overlap the link is out until the last of them ends."""

    class Config(OutageConfig):
        kind: Literal["schedule"] = "schedule"
        times: Annotated[tuple[Times, ...], Field(strict=False, min_length=1)]

    def __init__(self, config: Config, origin: Origin, place: int) -> None:
        self._edges: list[int] = []  # a start, its end, the next start ...
        for start_ns, end_ns in sorted((item.start, item.start + item.duration) for item in config.times):
            if self._edges and start_ns <= self._edges[-1]:
                self._edges[-1] = max(self._edges[-1], end_ns)
            else:
                self._edges += [start_ns, end_ns]

    def at(self, time_ns: int) -> Gap:
        index = bisect_right(self._edges, time_ns)
        return Gap(index % 2 == 1, self._edges[index] if index < len(self._edges) else FOREVER)
