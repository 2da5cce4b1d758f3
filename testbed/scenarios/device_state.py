"""What changes in a device while it runs: battery, heat, presence, what other programs take. All of it is optional.

What a device *is*, such as the size of its battery, stands in its profile; here stands what happens to a group's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.scenarios.base import (
    Block,
    PositiveShare,
    PositiveSizeBytes,
    Power,
    Share,
    SizeBytes,
    Temperature,
    TimeNs,
    as_pydantic,
)
from testbed.scenarios.base import LossProbability as LargeShare
from testbed.scenarios.levels import RandomLevels, Steps, TraceLevels, constant
from testbed.scenarios.profiles import DeviceProfile

Presence = Literal["present", "asleep", "left", "crashed"]
PRESENCES: tuple[Presence, ...] = ("present", "asleep", "left", "crashed")  # of several, the last one counts
_TOLERANCE = 1e-9

PresenceLevels = Annotated[
    Steps[Presence] | RandomLevels[Presence] | TraceLevels[Presence], Field(discriminator="kind")
]
LoadLevels = Annotated[
    Steps[LargeShare] | RandomLevels[LargeShare] | TraceLevels[LargeShare],
    Field(discriminator="kind"),
    BeforeValidator(constant),
]
SizeLevels = Annotated[
    Steps[SizeBytes] | RandomLevels[SizeBytes] | TraceLevels[SizeBytes],
    Field(discriminator="kind"),
    BeforeValidator(constant),
]
PowerLevels = Annotated[
    Steps[Power] | RandomLevels[Power] | TraceLevels[Power], Field(discriminator="kind"), BeforeValidator(constant)
]
V = TypeVar("V")


def _at(path: str, problem: str, **told: Any) -> Any:
    return as_pydantic(ScenarioError(problem, path=path, **told))


class Between(Block, Generic[V]):
    """Uniform between two values, every device for itself."""

    low: V
    high: V

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low: Any = self.low
        high: Any = self.high
        if high < low:
            raise _at("high", "high is below low", value=high, allowed=f"at least {low:g}")
        return self


def _same(value: object) -> object:
    """A bare value: every device has it."""
    return value if isinstance(value, Mapping | Between) else {"low": value, "high": value}


ShareBetween = Annotated[Between[Share], BeforeValidator(_same)]
TemperatureBetween = Annotated[Between[Temperature], BeforeValidator(_same)]


class Battery(Block):
    """Levels are shares of the profile's `battery_capacity`.

    At `cutoff` the device goes off; charged to `resume` it comes back, without one it never does.
    """

    initial: ShareBetween = Field(default=1.0, validate_default=True)
    cutoff: Share = 0.0
    resume: Share | None = None
    charge: PowerLevels | None = None  # what a charger gives, whatever the device does meanwhile

    @model_validator(mode="after")
    def _levels_in_order(self) -> Self:
        above = f"above the cutoff of {self.cutoff:g}"
        if self.initial.low <= self.cutoff:
            raise _at("initial", "the device would be off from the start", value=self.initial.low, allowed=above)
        if self.resume is not None and self.resume <= self.cutoff:
            raise _at("resume", "it would go off again at once", value=self.resume, allowed=above)
        if self.resume is not None and self.charge is None:
            raise _at("resume", "nothing charges the battery", value=self.resume, allowed="beside charge")
        return self


class Heat(Block):
    """The air around a device, which it starts as warm as."""

    ambient: TemperatureBetween = Field(default="25 degC", validate_default=True)


class Background(Block):
    """What a device's other programs take."""

    processor: LoadLevels | None = None  # share of its time
    memory: SizeLevels | None = None  # beside the profile's reserved_memory


class Choice(Block, Generic[V]):
    value: V
    share: PositiveShare


class Vary(Block):
    """How the devices of a group differ: a number of the profile is multiplied with 1 +- up to this share, uniformly.

    Memory is one of some sizes, each with its share of the devices.
    """

    memory: Annotated[tuple[Choice[PositiveSizeBytes], ...], Field(strict=False, min_length=1)] | None = None
    memory_bandwidth: LargeShare = 0.0
    compute: LargeShare = 0.0
    idle_power: LargeShare = 0.0
    active_power: LargeShare = 0.0
    battery_capacity: LargeShare = 0.0

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        if self.memory is not None:
            check_shares([choice.share for choice in self.memory], "memory")
        return self


def check_shares(shares: list[float], path: str) -> None:
    """Raise where shares of a whole are not the whole."""
    total = sum(shares)
    if abs(total - 1) > _TOLERANCE:
        raise _at(path, "the shares don't add up to 1", value=round(total, 9), allowed="shares with a sum of 1")


def _several(value: object) -> object:
    return [value] if isinstance(value, Mapping) else value


class GroupState(Block):
    """The part of a device group that says what may change in its devices while they run."""

    vary: Vary | None = None
    battery: Battery | None = None  # None: on the mains
    heat: Heat | None = None  # None: it never throttles
    churn: Annotated[tuple[PresenceLevels, ...], Field(strict=False), BeforeValidator(_several)] = ()
    wake_for_requests: bool = False  # a request wakes a device that is asleep, and keeps it awake
    wake_delay: TimeNs = Field(default=0, validate_default=False)
    notice_after: TimeNs = Field(default=0, validate_default=False)  # servers learn so much later that it is gone
    background: Background | None = None
    kv_claim: Literal["full", "as-used"] = "full"  # at full length at admission, or token by token

    @property
    def changing(self) -> list[str]:
        """What may change in its devices by itself."""
        parts = {"battery": self.battery, "heat": self.heat, "churn": self.churn, "other programs": self.background}
        return [name for name, part in parts.items() if part]

    @model_validator(mode="after")
    def _wakes(self) -> Self:
        if self.wake_delay and not self.wake_for_requests:
            raise _at("wake_delay", "nothing wakes the device", allowed="with wake_for_requests: true")
        return self


def check_figures(device: DeviceProfile, state: GroupState) -> None:
    """Raise where a group's battery or heat asks for a number that its device's profile leaves out."""
    needed = {"battery_capacity": state.battery is not None}
    needed |= dict.fromkeys(("thermal_resistance", "heat_capacity"), state.heat is not None)
    for key, is_needed in needed.items():
        if is_needed and getattr(device, key) is None:
            asks = "a battery" if key == "battery_capacity" else "heat"
            raise _at(
                f"device.{key}", f"required key is missing for a group with {asks}", allowed="a number, with unit"
            )
    if state.vary is not None and state.vary.battery_capacity and device.battery_capacity is None:
        raise _at("vary.battery_capacity", f"{device.name} has no battery_capacity to vary")
