"""A fleet's devices one by one: what sets each apart from its group's profile, and what changes in it by itself.

Every draw is keyed by the seed, its purpose, the group's name and the device's place in it: who else there is, and how
many, changes none. A number that varies is the profile's times ``1 + s (2 u - 1)``, u uniform in [0, 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from testbed.actors.battery import Battery
from testbed.actors.heat import Heat
from testbed.core.errors import ScenarioError
from testbed.core.rng import Stream, entity_key
from testbed.network_models.connections import Connections
from testbed.scenarios.device_state import PRESENCES, Between, Choice
from testbed.scenarios.profiles import DeviceProfile
from testbed.scenarios.schema import Group, Scenario
from testbed.sim.kernel import BusyTime, Clock
from testbed.sim.levels import Config, Levels, levels_of
from testbed.sim.vitals import Powers, Vitals
from testbed.sim.watch import Watch

_THOUSAND = 1000
_VARIED = ("memory_bandwidth", "compute", "idle_power", "active_power", "battery_capacity")
_ByPlace = Callable[[int], Levels]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changes:
    """What changes in a group's devices, by their place in it."""

    presence: Sequence[_ByPlace]
    load: _ByPlace | None
    others: _ByPlace | None  # bytes of memory
    charge: _ByPlace | None


class Fleet:
    """Makes every device's own profile and watch. Traces are read at once.

    Raises ScenarioError, with YAML path, file and line, for a trace that can't be read.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._seed = scenario.seed
        self._changes = {group.name: self._read(group, f"fleet[{index}]") for index, group in enumerate(scenario.fleet)}

    def profile(self, group: Group, place: int) -> DeviceProfile:
        """The profile of one device of the group."""
        vary = group.vary
        if vary is None:
            return group.device
        changes: dict[str, Any] = {}
        for key in _VARIED:
            spread, figure = getattr(vary, key), getattr(group.device, key)
            if spread and figure is not None:
                changes[key] = figure * (1 + spread * (2 * self._uniform(group, place, f"vary.{key}") - 1))
        if vary.memory is not None:
            changes["memory"] = _chosen(vary.memory, self._uniform(group, place, "vary.memory"))
        if "active_power" in changes or "idle_power" in changes:
            idle = changes.get("idle_power", group.device.idle_power)
            changes["active_power"] = max(idle, changes.get("active_power", group.device.active_power))
        return group.device.model_copy(update=changes)

    def watch(
        self, clock: Clock, group: Group, place: int, profile: DeviceProfile, *, device: int, links: Connections,
        busy: BusyTime,
    ) -> Watch | None:  # fmt: skip
        """None for a device that is always there and in which nothing changes."""
        changes = self._changes[group.name]
        if not group.changing:
            return None
        return Watch(
            clock,
            device,
            self._vitals(changes, group, place, profile),
            links=links,
            busy=busy,
            others=None if changes.others is None else changes.others(place),
            wake_delay_ns=group.wake_delay,
            notice_ns=group.notice_after,
        )

    def _vitals(self, changes: _Changes, group: Group, place: int, profile: DeviceProfile) -> Vitals:
        return Vitals(
            Powers.of(profile),
            presence=[levels(place) for levels in changes.presence],
            load=None if changes.load is None else changes.load(place),
            charge=None if changes.charge is None else changes.charge(place),
            battery=self._battery(group, place, profile),
            heat=self._heat(group, place, profile),
            wakes=group.wake_for_requests,
        )

    def _battery(self, group: Group, place: int, profile: DeviceProfile) -> Battery | None:
        if group.battery is None:
            return None
        assert profile.battery_capacity is not None, "checked when the scenario was read"
        return Battery(
            capacity_j=profile.battery_capacity,
            initial=self._between(group.battery.initial, group, place, "battery.initial"),
            cutoff=group.battery.cutoff,
            resume=group.battery.resume,
        )

    def _heat(self, group: Group, place: int, profile: DeviceProfile) -> Heat | None:
        if group.heat is None:
            return None
        return Heat(profile, self._between(group.heat.ambient, group, place, "heat.ambient"))

    def _between(self, range_: Between[float], group: Group, place: int, purpose: str) -> float:
        return range_.low + (range_.high - range_.low) * self._uniform(group, place, purpose)

    def _uniform(self, group: Group, place: int, purpose: str) -> float:
        return Stream.named(self._seed, f"device.{purpose}").uniform(entity_key(group.name, place), 0)

    def _read(self, group: Group, path: str) -> _Changes:
        def read(key: str, config: Config, convert: Callable[[Any], int]) -> _ByPlace:
            try:
                return levels_of(
                    config, convert, seed=self._seed, group=group.name, count=group.count, purpose=f"device.{key}"
                )
            except ScenarioError as error:
                raise error.located(path=f"{path}.{key}") from None

        background, charge = group.background, None if group.battery is None else group.battery.charge
        load, others = (None, None) if background is None else (background.processor, background.memory)
        keys = [f"churn[{index}]" if len(group.churn) > 1 else "churn" for index in range(len(group.churn))]
        return _Changes(
            presence=[read(key, config, PRESENCES.index) for key, config in zip(keys, group.churn, strict=True)],
            load=None if load is None else read("background.processor", load, _thousandths),
            others=None if others is None else read("background.memory", others, int),
            charge=None if charge is None else read("battery.charge", charge, _thousandths),
        )


def _thousandths(value: float) -> int:
    """Milliwatts of watts, thousandths of a share."""
    return round(value * _THOUSAND)


def _chosen(choices: Sequence[Choice[int]], u: float) -> int:
    """The value at u in [0, 1) when each takes as much of it as its share."""
    ends = accumulate(choice.share for choice in choices)
    return next((choice.value for choice, end in zip(choices, ends, strict=True) if u < end), choices[-1].value)
