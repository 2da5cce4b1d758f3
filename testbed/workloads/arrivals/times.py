"""Arrivals at given instants."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from testbed.scenarios.base import TimeNs
from testbed.scenarios.workload import ArrivalConfig
from testbed.workloads.members import Members
from testbed.workloads.openings import Openings, each_in_turn


class Times:
    """Every device sends at these instants."""

    class Config(ArrivalConfig):
        kind: Literal["times"] = "times"
        times: list[TimeNs] = Field(min_length=1)

    def __init__(self, config: Config) -> None:
        self._times = sorted(config.times)

    def expected_count(self, members: Members) -> float:
        """Requests of the group."""
        return float(members.count * len(self._times))

    def openings(self, members: Members) -> Openings:
        place, counter = each_in_turn(members, len(self._times))
        return Openings(place=place, counter=counter, arrival_ns=np.array(self._times, dtype=np.int64)[counter])
