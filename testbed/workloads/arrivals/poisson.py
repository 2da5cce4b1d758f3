"""Poisson arrivals: gaps without memory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from testbed.core.portable_arrays import exponential_quantile
from testbed.scenarios.base import Frequency
from testbed.scenarios.workload import ArrivalConfig
from testbed.workloads.instants import summed_gaps, whole_ns
from testbed.workloads.members import Members
from testbed.workloads.openings import Openings, each_in_turn


class Poisson:
    """Every device sends on its own, with exponential gaps.

    Gap number k of a device is ``-ln(1 - u) / rate`` of its k-th draw from stream `arrivals`, rounded to nanoseconds;
    arrivals are the sums of gaps.
    """

    class Config(ArrivalConfig):
        kind: Literal["poisson"] = "poisson"
        rate_per_device: Frequency
        requests_per_device: int = Field(ge=1)

    def __init__(self, config: Config) -> None:
        self._config = config

    def openings(self, members: Members) -> Openings:
        place, counter = each_in_turn(members, self._config.requests_per_device)
        u = members.stream("arrivals").uniform_each(members.entities[place], counter)
        gaps_ns = whole_ns(exponential_quantile(u) * (1 / self._config.rate_per_device))
        arrival_ns = summed_gaps(gaps_ns.reshape(members.count, -1)).reshape(-1)
        return Openings(place=place, counter=counter, arrival_ns=arrival_ns)
