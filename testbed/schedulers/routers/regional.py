"""By distance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Literal

from pydantic import Field

from testbed.scenarios.cluster import RegionalConfig
from testbed.schedulers.routing import Ask, Candidate, least_loaded

_distance = attrgetter("distance_ns")


class NearestRegion:
    """The least loaded of the servers that are nearest to the device, however busy they are."""

    class Config(RegionalConfig):
        kind: Literal["nearest-region"] = "nearest-region"

    def __init__(self, _config: Config, _seed: int) -> None:
        pass

    def choose(self, _ask: Ask, candidates: Sequence[Candidate]) -> int:
        nearest_ns = min(map(_distance, candidates))
        return least_loaded([candidate for candidate in candidates if candidate.distance_ns == nearest_ns]).server


class SpillOver:
    """The least loaded of the nearest servers while it has fewer than `threshold` requests, else of the next nearest.

    Where every distance is that loaded: the least loaded of all, the nearer one among equals.
    """

    class Config(RegionalConfig):
        kind: Literal["spill-over"] = "spill-over"
        threshold: int = Field(ge=1)  # outstanding requests of a server

    def __init__(self, config: Config, _seed: int) -> None:
        self._threshold = config.threshold

    def choose(self, _ask: Ask, candidates: Sequence[Candidate]) -> int:
        best = [least_loaded([*alike]) for _, alike in groupby(sorted(candidates, key=_distance), key=_distance)]
        for candidate in best:
            if candidate.num_outstanding < self._threshold:
                return candidate.server
        return min(best, key=attrgetter("num_outstanding", "distance_ns")).server
