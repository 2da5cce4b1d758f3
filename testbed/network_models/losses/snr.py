"""Loss by signal-to-noise ratio: a fading link loses packets when it fades."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated, Literal, Protocol, Self, cast

from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.rng import probability_u32
from testbed.network_models.losses.bernoulli import ATTEMPT_SHIFT
from testbed.network_models.origin import Origin
from testbed.network_models.rates.segments import Rate
from testbed.scenarios.base import Probability, as_pydantic
from testbed.scenarios.pieces import LossConfig

_STEPS_PER_DB = 16
Decibels = Annotated[float, Field(ge=-100, le=100)]
Point = Annotated[tuple[Decibels, Probability], Field(strict=False)]


class FadingRate(Protocol):
    """A rate that knows the channel it comes from."""

    def snr(self, time_ns: int) -> float:
        """Signal-to-noise ratio at an instant, linear."""
        ...


class SnrLoss:
    """A transmission is lost with the packet error rate of the ratio that its last bit meets, by a curve in dB.

    The curve is logistic, 1 / (1 + exp((snr - midpoint) / slope)), or a table of (dB, error rate) with straight lines
    between and its ends' values outside: what a modulation and its code make of a packet, measured or from a standard.
    It is read in steps of a sixteenth of a dB. Draws are keyed by packet and attempt, as Bernoulli's.
    """

    class Config(LossConfig):
        kind: Literal["snr"] = "snr"
        midpoint_db: Decibels | None = None  # where half of the packets are lost
        slope_db: float | None = Field(default=None, gt=0, le=100)  # from a half to 27 %
        table: Annotated[tuple[Point, ...], Field(strict=False, min_length=2)] | None = None

        @property
        def needs_packets(self) -> str:
            return "its loss depends on when each packet leaves"

        @model_validator(mode="after")
        def _is_one_curve(self) -> Self:
            logistic = (self.midpoint_db is not None) + (self.slope_db is not None)
            if logistic + 2 * (self.table is not None) != 2:  # noqa: PLR2004 - both keys of the one, or the other
                problem = "one curve of packet error rates is expected"
                raise as_pydantic(ScenarioError(problem, allowed="midpoint_db and slope_db; or table"))
            if self.table is not None:
                self._check_table(self.table)
            return self

        @staticmethod
        def _check_table(table: Sequence[tuple[float, float]]) -> None:
            for index in range(1, len(table)):
                (before_db, before), (db, error) = table[index - 1], table[index]
                if db <= before_db or error > before:
                    problem = "a curve's ratios ascend and its error rates do not"
                    value = f"[{db:g}, {error:g}] after [{before_db:g}, {before:g}]"
                    raise as_pydantic(ScenarioError(problem, path=f"table[{index}]", value=value))

        def error_rate(self, snr_db: float) -> float:
            """Share of packets that are lost at this ratio."""
            if self.table is None:
                assert self.midpoint_db is not None, "checked above"
                assert self.slope_db is not None, "checked above"
                return 0.5 - 0.5 * math.tanh((snr_db - self.midpoint_db) / self.slope_db / 2)
            place = bisect_right(self.table, snr_db, key=lambda point: point[0])
            if place in {0, len(self.table)}:
                return self.table[min(place, len(self.table) - 1)][1]
            (low_db, low), (high_db, high) = self.table[place - 1 : place + 1]
            return low + (high - low) * (snr_db - low_db) / (high_db - low_db)

    __slots__ = ("_config", "_draws", "_rate")

    def __init__(self, config: Config, origin: Origin, rate: Rate) -> None:
        if not hasattr(rate, "snr"):
            raise ScenarioError(
                "a loss by SNR without a fading rate", path="kind", value="snr", allowed="with fading rates up and down"
            )
        self._config = config
        self._rate = cast(FadingRate, rate)
        self._draws = origin.draws("loss")

    def is_lost(self, packet: int, attempt: int, time_ns: int) -> bool:
        """Whether this one transmission, whose last bit leaves at `time_ns`, is lost."""
        threshold = probability_u32(self._config.error_rate(self._snr_db(time_ns)))
        return self._draws.u64(attempt << ATTEMPT_SHIFT | packet) >> 32 < threshold

    def lost(self, packets: Sequence[int], attempt: int) -> list[int]:
        raise AssertionError("its loss depends on when each packet leaves")

    def _snr_db(self, time_ns: int) -> float:
        """In whole steps, so that the last bit of a logarithm decides nothing."""
        snr = self._rate.snr(time_ns)
        return round(10 * math.log10(snr) * _STEPS_PER_DB) / _STEPS_PER_DB if snr > 0 else -math.inf
