"""A given number of arrivals, anywhere in a window."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from testbed.core.units import format_seconds, ns_to_seconds
from testbed.scenarios.base import PositiveTimeNs, TimeNs
from testbed.scenarios.workload import ArrivalConfig
from testbed.workloads.arrivals.rated import at, check_one_of
from testbed.workloads.intensity import constant, scattered
from testbed.workloads.members import Members
from testbed.workloads.openings import Openings


class Uniform:
    """So many requests of every device, or of the whole group, at independent uniform instants of a window."""

    class Config(ArrivalConfig):
        kind: Literal["uniform"] = "uniform"
        requests_per_device: int | None = Field(default=None, ge=1)
        requests: int | None = Field(default=None, ge=1)  # of the whole group
        start: TimeNs = 0
        until: PositiveTimeNs

        @model_validator(mode="after")
        def _is_a_window(self) -> Self:
            check_one_of(self, ("requests_per_device", "requests"))
            if self.until <= self.start:
                text = format_seconds(ns_to_seconds(self.until))
                raise at("until", "the window is empty", value=text, allowed="a time after start")
            return self

    def __init__(self, config: Config) -> None:
        self._config = config

    def expected_count(self, members: Members) -> float:
        """Requests of the group."""
        return float(self._config.requests or members.count * (self._config.requests_per_device or 0))

    def openings(self, members: Members) -> Openings:
        config, is_per_device = self._config, self._config.requests is None
        number = config.requests_per_device or config.requests or 0
        counts = np.full(members.count if is_per_device else 1, number, dtype=np.int64)
        window = constant(1.0, config.start, config.until)
        return scattered(members, window, counts, is_per_device=is_per_device)
