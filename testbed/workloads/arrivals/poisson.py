"""Poisson arrivals: gaps without memory."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from testbed.core.portable_arrays import exponential_quantile
from testbed.core.rng import I64Array
from testbed.scenarios.base import PositiveTimeNs
from testbed.workloads.arrivals.rated import Rated, check_one_of, refuse_beside
from testbed.workloads.instants import summed_gaps, whole_ns
from testbed.workloads.intensity import constant, in_window
from testbed.workloads.members import Members
from testbed.workloads.openings import Openings, dealt, each_in_turn


class Poisson:
    """Exponential gaps, of every device or of the whole group; so many requests, or until an instant.

    Gap number k is ``-ln(1 - u) / rate`` of the k-th draw from stream `arrivals` of whoever draws, in nanoseconds,
    rounded; arrivals are the sums of gaps. Until an instant the number of arrivals is drawn, and their instants.
    """

    class Config(Rated):
        kind: Literal["poisson"] = "poisson"
        requests_per_device: int | None = Field(default=None, ge=1)
        requests: int | None = Field(default=None, ge=1)  # of the whole group
        until: PositiveTimeNs | None = Field(default=None, validate_default=False)

        @model_validator(mode="after")
        def _one_end(self) -> Self:
            if self.is_per_device:
                refuse_beside(self, "rate_per_device", {"requests": "requests_per_device"})
            else:
                refuse_beside(self, "rate", {"requests_per_device": "requests"})
            check_one_of(self, ("requests_per_device" if self.is_per_device else "requests", "until"))
            return self

    def __init__(self, config: Config) -> None:
        self._config = config

    def expected_count(self, members: Members) -> float:
        """Requests of the group in the mean."""
        config = self._config
        return config.expected_count(members, self._number or constant(config.rate_per_s, 0, self._until).mean_count)

    def openings(self, members: Members) -> Openings:
        config = self._config
        if not self._number:
            intensity = constant(config.rate_per_s, 0, self._until)
            return in_window(members, intensity, is_per_device=config.is_per_device)
        if config.is_per_device:
            place, counter = each_in_turn(members, self._number)
            return Openings(place=place, counter=counter, arrival_ns=self._sums(members, place, counter))
        place, counter = dealt(members, self._number)
        return Openings(place=place, counter=counter, arrival_ns=self._sums(members, place * 0, counter))

    @property
    def _number(self) -> int:
        """Requests of whoever draws; 0 where an instant ends them."""
        return self._config.requests_per_device or self._config.requests or 0

    @property
    def _until(self) -> int:
        return self._config.until or 0

    def _sums(self, members: Members, drawer: I64Array, counter: I64Array) -> I64Array:
        u = members.stream("arrivals").uniform_each(members.entities[drawer], counter)
        gaps_ns = whole_ns(exponential_quantile(u) * (1 / self._config.rate_per_s))
        return summed_gaps(gaps_ns.reshape(-1, self._number)).reshape(-1)
