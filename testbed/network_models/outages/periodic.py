"""Outages at equal distances, as handovers along a line of cells are."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.units import format_seconds, ns_to_seconds
from testbed.network_models.origin import Origin
from testbed.network_models.outages.gaps import Gap
from testbed.scenarios.base import RANDOM, PositiveTimeNs, TimeOrRandom, as_pydantic
from testbed.scenarios.pieces import OutageConfig


class PeriodicOutages:
    """At equal distances: one begins at `first`, then every `every`.

    A random `first` is uniform over a period and the link's own.
    """

    class Config(OutageConfig):
        kind: Literal["periodic"] = "periodic"
        every: PositiveTimeNs
        duration: PositiveTimeNs
        first: TimeOrRandom = Field(default=0, validate_default=False)

        @model_validator(mode="after")
        def _leaves_time(self) -> Self:
            if self.duration >= self.every:
                every, duration = (format_seconds(ns_to_seconds(time)) for time in (self.every, self.duration))
                problem, allowed = "the link would never carry anything", f"less than `every`, {every}"
                error: Any = as_pydantic(ScenarioError(problem, path="duration", value=duration, allowed=allowed))
                raise error
            return self

    def __init__(self, config: Config, origin: Origin, place: int) -> None:
        self._every_ns, self._duration_ns, self._first_ns = config.every, config.duration, config.first
        if config.first == RANDOM:
            self._first_ns = origin.link_stream(f"outages.{place}").below(config.every, origin.entity, 0)

    def at(self, time_ns: int) -> Gap:
        if time_ns < self._first_ns:
            return Gap(False, self._first_ns)
        since_ns = (time_ns - self._first_ns) % self._every_ns
        is_out = since_ns < self._duration_ns
        return Gap(is_out, time_ns - since_ns + (self._duration_ns if is_out else self._every_ns))
