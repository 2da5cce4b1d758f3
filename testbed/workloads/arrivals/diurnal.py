"""Arrivals whose rate follows the hour of the day."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from testbed.core.rng import F64Array, I64Array
from testbed.core.units import NS_PER_S
from testbed.scenarios.base import PositiveTimeNs, Probability, TimeNs
from testbed.workloads.arrivals.rated import Windowed, at, check_one_of
from testbed.workloads.intensity import Intensity, in_window
from testbed.workloads.members import Members
from testbed.workloads.openings import Openings

_HOURS = 24
Weight = Annotated[float, Field(ge=0)]


class Diurnal:
    """A Poisson process whose rate, `rate` in the mean of a day, follows a sinusoid or 24 hourly weights.

    With a swing: ``rate(t) = rate (1 + swing cos(2 pi (begins + t - peak) / day))``. With hours: ``rate`` times the
    hour's weight over the mean weight, constant within each 24th of a day.
    """

    class Config(Windowed):
        kind: Literal["diurnal"] = "diurnal"
        swing: Probability | None = None
        peak: TimeNs | None = None  # time of day of the sinusoid's peak; None: 20 of 24 hours
        hours: Annotated[tuple[Weight, ...], Field(strict=False)] | None = None
        begins: TimeNs = 0  # time of day when the run starts
        day: PositiveTimeNs = Field(default=86_400 * NS_PER_S, validate_default=False)
        # A shorter one is a day in fast motion, an hour a 24th of it.

        @model_validator(mode="after")
        def _one_shape(self) -> Self:
            check_one_of(self, ("swing", "hours"))
            if self.hours is not None and len(self.hours) != _HOURS:
                raise at("hours", "not a weight for every hour", value=len(self.hours), allowed=f"{_HOURS} weights")
            if self.hours is not None and not sum(self.hours):
                raise at("hours", "every weight is 0: nothing would ever arrive")
            return self

    def __init__(self, config: Config) -> None:
        self._config = config
        self.intensity = self._by_swing(config.swing) if config.swing is not None else self._by_hours()

    def expected_count(self, members: Members) -> float:
        """Requests of the group in the mean."""
        return self._config.expected_count(members, self.intensity.mean_count)

    def openings(self, members: Members) -> Openings:
        return in_window(members, self.intensity, is_per_device=self._config.is_per_device)

    def _by_swing(self, swing: float) -> Intensity:
        """The integral is ``rate (T + swing day / (2 pi) (sin(last) - sin(first)))``."""
        config, turn = self._config, 2 * math.pi / self._config.day
        peak = config.day * 5 // 6 if config.peak is None else config.peak
        first = turn * (config.begins - peak)
        waves = math.sin(first + turn * config.until) - math.sin(first)

        def share(instants_ns: I64Array) -> F64Array:
            found: F64Array = (1 + swing * np.cos(first + turn * instants_ns)) / (1 + swing)
            return found

        return Intensity(
            edges_ns=np.array([0, config.until], dtype=np.int64),
            envelope_per_s=np.array([config.rate_per_s * (1 + swing)]),
            mean_count=config.rate_per_s * (config.until + swing * waves / turn) / NS_PER_S,
            share=share,
        )

    def _by_hours(self) -> Intensity:
        config, hours = self._config, np.array(self._config.hours)
        first, last = config.begins * _HOURS // config.day, (config.begins + config.until) * _HOURS // config.day
        borders = [-(-hour * config.day // _HOURS) - config.begins for hour in range(first + 1, last + 1)]
        edges = np.array(sorted({0, *(edge for edge in borders if 0 < edge < config.until), config.until}))
        middle = (edges[:-1] + edges[1:]) // 2 + config.begins
        rates = config.rate_per_s * hours[(middle * _HOURS // config.day) % _HOURS] / hours.mean()
        return Intensity(
            edges_ns=edges, envelope_per_s=rates, mean_count=float(np.sum(rates * np.diff(edges)) / NS_PER_S)
        )
