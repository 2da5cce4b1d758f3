"""What arrival laws with a rate have in common: whose rate it is, and for how long it goes on."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator

from testbed.core.errors import ScenarioError
from testbed.scenarios.base import Frequency, PositiveTimeNs, as_pydantic
from testbed.scenarios.workload import ArrivalConfig
from testbed.workloads.members import Members


def check_one_of(config: ArrivalConfig, keys: tuple[str, ...]) -> str:
    """The one of `keys` that is given; ScenarioError for none or several."""
    given = [key for key in keys if getattr(config, key) is not None]
    if len(given) != 1:
        problem = "required key is missing" if not given else f"not beside {given[0]}"
        raise as_pydantic(
            ScenarioError(problem, path=given[1] if given else keys[0], allowed="one of " + ", ".join(keys))
        )
    return given[0]


def refuse_beside(config: ArrivalConfig, key: str, others: dict[str, str]) -> None:
    """ScenarioError for keys that make no sense beside `key`; each with what to take instead."""
    for other, instead in others.items():
        if getattr(config, other) is not None:
            problem = f"no such key beside {key}"
            raise as_pydantic(ScenarioError(problem, path=other, allowed=instead))


class Rated(ArrivalConfig):
    """A rate for every device, or one for the whole group whose arrivals then go to devices drawn by key."""

    rate_per_device: Frequency | None = None
    rate: Frequency | None = None

    @model_validator(mode="after")
    def _one_rate(self) -> Self:
        check_one_of(self, ("rate_per_device", "rate"))
        return self

    @property
    def rate_per_s(self) -> float:
        """Of whoever draws: a device, or the group."""
        return float(self.rate_per_device or self.rate or 0.0)

    @property
    def is_per_device(self) -> bool:
        return self.rate_per_device is not None

    def expected_count(self, members: Members, per_drawer: float) -> float:
        """Of the whole group, from the expected count of whoever draws."""
        return per_drawer * members.count if self.is_per_device else per_drawer


class Windowed(Rated):
    """Goes on until an instant."""

    until: PositiveTimeNs


def at(path: str, problem: str, **told: Any) -> Any:
    """A fault that shows only beside other keys, at the key to change."""
    return as_pydantic(ScenarioError(problem, path=path, **told))
