"""What is constant for a while, then another: a device's presence, the load of other programs, a charger's power.

Values stand at steps, last for random times, or come from a CSV file. A bare value is a constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.units import format_seconds, ns_to_seconds
from testbed.scenarios.base import RANDOM, Block, FileName, PositiveTimeNs, TimeNs, TimeOrRandom, as_pydantic
from testbed.scenarios.problems import validate

V = TypeVar("V")


def _at(path: str, problem: str, **told: Any) -> Any:
    return as_pydantic(ScenarioError(problem, path=path, **told))


def _time(time_ns: int) -> str:
    return format_seconds(ns_to_seconds(time_ns))


class Step(Block, Generic[V]):
    """From this instant on."""

    at: TimeNs
    value: V


class Steps(Block, Generic[V]):
    """Each value from its instant until the next; with `every` all over again after that time, as with a day.

    `offset` is how much later than written all that is for a device; a random one is uniform over `every` and the
    device's own. Before it, the first value holds, or where it repeats what holds one period later.
    """

    kind: Literal["schedule"]
    steps: Annotated[tuple[Step[V], ...], Field(strict=False, min_length=1)]
    every: PositiveTimeNs | None = None
    offset: TimeOrRandom = Field(default=0, validate_default=False)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.steps[0].at != 0:
            raise _at(
                "steps[0].at", "the first value must hold from the start", value=_time(self.steps[0].at), allowed="0"
            )
        for place, (before, step) in enumerate(pairwise(self.steps), start=1):
            if step.at <= before.at:
                allowed = f"after the step before, {_time(before.at)}"
                raise _at(f"steps[{place}].at", "not in the order of time", value=_time(step.at), allowed=allowed)
        if self.every is not None and self.steps[-1].at >= self.every:
            last = f"steps[{len(self.steps) - 1}].at"
            raise _at(
                last, "it would never come", value=_time(self.steps[-1].at), allowed=f"before {_time(self.every)}"
            )
        if self.offset == RANDOM and self.every is None:
            raise _at(
                "offset", "only what repeats has a random offset", value="random", allowed="a time, or with every"
            )
        return self


class Stay(Block, Generic[V]):
    """A value, and for how long it lasts in the mean."""

    value: V
    mean: PositiveTimeNs


class RandomLevels(Block, Generic[V]):
    """States in turn, each for an exponential time, every device for itself.

    A device is found in a state with the share of time that it has in the long run.
    """

    kind: Literal["random"]
    states: Annotated[tuple[Stay[V], ...], Field(strict=False, min_length=2)]


class TraceLevels(Block, Generic[V]):
    """A CSV file with a header row: a device, a time, the value from then on. Before its first row, `initial`.

    Devices are numbered from 0 within their group; without `device_column` all of them have the same.
    """

    kind: Literal["trace"]
    file: FileName
    initial: V
    device_column: str | None = None
    time_column: str = "time"
    value_column: str = "value"
    time_unit: Literal["s", "ms", "us", "ns"] = "s"

    def value_of(self, cell: str) -> V:
        """A cell of the value column, as `initial` would be read."""
        return validate(type(self), {"kind": "trace", "file": self.file, "initial": cell}).initial


def constant(value: object) -> object:
    """A bare value stands for one that never changes."""
    if isinstance(value, Mapping | Steps | RandomLevels | TraceLevels):
        return value
    return {"kind": "schedule", "steps": [{"at": 0, "value": value}]}
