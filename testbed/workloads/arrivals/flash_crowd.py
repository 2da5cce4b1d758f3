"""A crowd that comes all at once and goes again."""

from __future__ import annotations

import math
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from testbed.core.rng import F64Array, I64Array
from testbed.core.units import NS_PER_S, format_seconds, ns_to_seconds
from testbed.scenarios.base import PositiveTimeNs, TimeNs
from testbed.workloads.arrivals.rated import Windowed, at
from testbed.workloads.intensity import Intensity, in_window
from testbed.workloads.members import Members
from testbed.workloads.openings import Openings

_NUM_RISE_STEPS, _NUM_DECAY_STEPS = 16, 64  # of the envelope
_STEPS_PER_DECAY = 4


class FlashCrowd:
    """A Poisson process that rises evenly to `peak` times its base rate, holds that, and decays exponentially.

    Above the base: 0 until `start`, rising linearly during `rise`, ``(peak - 1) base`` during `hold`, and then
    ``(peak - 1) base exp(-t / decay)``.
    """

    class Config(Windowed):
        kind: Literal["flash-crowd"] = "flash-crowd"
        peak: float = Field(ge=1)  # times the base rate
        start: TimeNs
        rise: TimeNs
        hold: TimeNs
        decay: PositiveTimeNs  # until what is above the base has fallen to 1 / e

        @model_validator(mode="after")
        def _starts_in_time(self) -> Self:
            if self.until <= self.start:
                text = format_seconds(ns_to_seconds(self.until))
                raise at("until", "over before the crowd comes", value=text, allowed="a time after start")
            return self

    def __init__(self, config: Config) -> None:
        self._config = config
        edges = self._edges()
        upper = np.maximum(self.height_at(edges[:-1]), self.height_at(edges[1:] - 1))

        def share(instants_ns: I64Array) -> F64Array:
            step = np.searchsorted(edges, instants_ns, side="right") - 1
            return self.height_at(instants_ns) / upper[step]

        self.intensity = Intensity(
            edges_ns=edges, envelope_per_s=config.rate_per_s * upper, mean_count=self._mean_count(), share=share
        )

    def expected_count(self, members: Members) -> float:
        """Requests of the group in the mean."""
        return self._config.expected_count(members, self.intensity.mean_count)

    def openings(self, members: Members) -> Openings:
        return in_window(members, self.intensity, is_per_device=self._config.is_per_device)

    def height_at(self, time_ns: I64Array) -> F64Array:
        """The rate over the base rate."""
        config = self._config
        since, top_ns = time_ns - config.start, config.rise + config.hold
        rising = np.clip(since / config.rise, 0.0, 1.0) if config.rise else np.where(since >= 0, 1.0, 0.0)
        falling = np.exp(np.minimum(top_ns - since, 0) / config.decay)
        return np.asarray(1 + (config.peak - 1) * rising * falling, dtype=np.float64)

    def _mean_count(self) -> float:
        """The integral of the rate: each phase as far as it lies before the end."""
        config = self._config
        left = config.until - config.start
        rise = min(left, config.rise)
        hold = min(max(left - config.rise, 0), config.hold)
        tail = max(left - config.rise - config.hold, 0)
        risen = rise**2 / (2 * config.rise) if config.rise else 0.0
        above_ns = risen + hold + config.decay * -math.expm1(-tail / config.decay)
        return config.rate_per_s * (config.until + (config.peak - 1) * above_ns) / NS_PER_S

    def _edges(self) -> I64Array:
        config = self._config
        rises = [config.start + config.rise * step // _NUM_RISE_STEPS for step in range(_NUM_RISE_STEPS + 1)]
        top = config.start + config.rise + config.hold
        falls = [top + config.decay * step // _STEPS_PER_DECAY for step in range(_NUM_DECAY_STEPS + 1)]
        inside = {edge for edge in (*rises, *falls) if 0 < edge < config.until}
        return np.array(sorted({0, config.until} | inside), dtype=np.int64)
