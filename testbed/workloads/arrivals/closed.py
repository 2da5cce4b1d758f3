"""Users who think: a device's next request comes some time after the answer to the one before."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from testbed.scenarios.laws import Duration
from testbed.scenarios.workload import ArrivalConfig
from testbed.workloads.durations import duration_law
from testbed.workloads.instants import FAR_NS, summed_gaps
from testbed.workloads.members import Members
from testbed.workloads.openings import Openings, each_in_turn


class Closed:
    """A closed loop: every device sends, waits for the end of its request, thinks, and sends again, so many times.

    Request k of a device comes a think time, draw k from stream `arrivals`, after the end of request k - 1; the first
    at an instant of the law `first`, or where there is none after a think time.
    """

    class Config(ArrivalConfig):
        kind: Literal["closed"] = "closed"
        requests_per_device: int = Field(ge=1)
        think: Duration
        first: Duration | None = None

    def __init__(self, config: Config) -> None:
        self._config = config

    def expected_count(self, members: Members) -> float:
        """Requests of the group."""
        return float(members.count * self._config.requests_per_device)

    def openings(self, members: Members) -> Openings:
        place, counter = each_in_turn(members, self._config.requests_per_device)
        u = members.stream("arrivals").uniform_each(members.entities[place], counter)
        gaps_ns = duration_law(self._config.think).at(u)
        if self._config.first is not None:
            is_first = counter == 0
            gaps_ns[is_first] = duration_law(self._config.first).at(u[is_first])
        arrival_ns = summed_gaps(gaps_ns.reshape(members.count, -1)).reshape(-1)
        gap_ns = np.where(counter > 0, np.minimum(gaps_ns, FAR_NS), 0).astype(np.int64)
        return Openings(place=place, counter=counter, arrival_ns=arrival_ns, gap_ns=gap_ns)
