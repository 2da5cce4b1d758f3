"""Outages at random: a Poisson process of beginnings while the link is up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.portable import exponential
from testbed.network_models.jitter import jitter_table
from testbed.network_models.origin import Origin
from testbed.network_models.outages.gaps import Gap
from testbed.network_models.rates.sojourns import Sojourns
from testbed.scenarios.base import Block, PositiveTimeNs, TimeNs, as_pydantic
from testbed.scenarios.jitter import JitterConfig
from testbed.scenarios.pieces import OutageConfig

_UP, _OUT = 0, 1


class Duration(Block):
    """A named law by its mean and standard deviation."""

    law: Literal["constant", "uniform", "exponential", "lognormal", "gamma", "pareto"]
    mean: PositiveTimeNs
    std: TimeNs = 0

    @model_validator(mode="after")
    def _std_fits_law(self) -> Self:
        needs_std = self.law not in {"constant", "exponential"}
        if needs_std != bool(self.std):
            problem = f"law {self.law!r} {'needs a' if needs_std else 'has no'} std"
            error: Any = as_pydantic(
                ScenarioError(problem, path="std", value=f"{self.std} ns", allowed="more than 0" if needs_std else "0")
            )
            raise error
        return self


def _bare(value: object) -> object:
    return value if isinstance(value, Mapping | Duration) else {"law": "constant", "mean": value}


class RandomOutages:
    """At random: up for an exponential time of mean `mean_gap`, then out for a time of the law `duration`."""

    class Config(OutageConfig):
        kind: Literal["random"] = "random"
        mean_gap: PositiveTimeNs
        duration: Annotated[Duration, BeforeValidator(_bare)]  # a bare time: always that

    def __init__(self, config: Config, origin: Origin, place: int) -> None:
        self._mean_gap_ns = config.mean_gap
        self._durations = jitter_table(JitterConfig.model_validate(config.duration.model_dump(mode="json")))
        self._stream = origin.link_stream(f"outages.{place}")
        self._entity = origin.entity
        self._sojourns = Sojourns(_UP, self._draw)

    def _draw(self, number: int, state: int) -> tuple[int, int]:
        if state == _OUT:
            return max(1, self._durations.value(self._stream.u64(self._entity, number) >> 32)), _UP
        return max(1, round(self._mean_gap_ns * exponential(self._stream, self._entity, number))), _OUT

    def at(self, time_ns: int) -> Gap:
        state, end_ns = self._sojourns.at(time_ns)
        return Gap(state == _OUT, end_ns)
