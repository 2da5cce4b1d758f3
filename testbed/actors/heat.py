"""A device's temperature: one heat capacity behind one thermal resistance [our design].

    C dT/dt = P - (T - T_a) / R        T(t) = T_inf + (T_0 - T_inf) exp(-t / RC),   T_inf = T_a + R P

P is the processor's power, constant from one change to the next; the radio's is left out. The state is kept where P
changes last, so that asking in between changes no bit of it. A threshold is crossed at the first whole nanosecond not
before ``RC ln((T_inf - T_0) / (T_inf - T_x))``, and the temperature there is the threshold itself.

Throttling is decided when a stage starts: while the temperature is at or above the next step's `above` the next step
holds, while it is below the present step's `below` the one before. It holds for the whole stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.core.portable import exp, ln
from testbed.core.units import NS_PER_S
from testbed.scenarios.profiles import DeviceProfile

NEVER = 1 << 62
_MW_PER_W = 1000
_WHOLE = 1000  # shares are whole thousandths


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """One step of the throttle curve; speed and power in thousandths."""

    above_c: float
    below_c: float
    speed: int
    power: int


UNTHROTTLED = (_WHOLE, _WHOLE)


class Heat:
    """One device's temperature, throttle step and shut-off."""

    def __init__(self, profile: DeviceProfile, ambient_c: float) -> None:
        assert profile.thermal_resistance is not None, "checked when the scenario was read"
        assert profile.heat_capacity is not None, "checked when the scenario was read"
        self._resistance = profile.thermal_resistance
        self._tau_ns = profile.thermal_resistance * profile.heat_capacity * NS_PER_S
        self._ambient_c = ambient_c
        self._curve = throttle_curve(profile)
        self._limit_c, self._restart_c = profile.shutdown_temperature, profile.restart_temperature
        self._since_ns = 0
        self._since_c = self.max_c = ambient_c
        self._final_c = ambient_c  # where it would go to at this power
        self._step = 0  # of the throttle curve, 0: none
        self.due_ns = NEVER  # when it shuts off, or comes back
        self.is_shut = False
        self.num_shutdowns = 0
        self._plan()

    def at(self, now_ns: int) -> float:
        """Degrees Celsius; changes nothing."""
        passed = (now_ns - self._since_ns) / self._tau_ns
        return self._final_c + (self._since_c - self._final_c) * exp(-passed)

    def drive(self, now_ns: int, power_mw: int) -> None:
        """From now on the processor takes this power."""
        final_c = self._ambient_c + self._resistance * (power_mw / _MW_PER_W)
        if final_c != self._final_c:
            self._keep(now_ns, self.at(now_ns))
            self._final_c = final_c
            self._plan()

    def settle(self, now_ns: int) -> None:
        """Shut off, or come back, where that is due."""
        if now_ns < self.due_ns:
            return
        target_c = self._target_c
        assert target_c is not None, "something was due"
        self._keep(now_ns, target_c if self.due_ns > self._since_ns else self._since_c)
        self.is_shut = not self.is_shut
        self.num_shutdowns += self.is_shut
        self._plan()

    def throttle(self, now_ns: int) -> tuple[int, int]:
        """Speed, and power above idling, of a stage that starts now, in thousandths."""
        now_c, curve = self.at(now_ns), self._curve
        while self._step < len(curve) and now_c >= curve[self._step].above_c:
            self._step += 1
        while self._step and now_c < curve[self._step - 1].below_c:
            self._step -= 1
        return UNTHROTTLED if not self._step else (curve[self._step - 1].speed, curve[self._step - 1].power)

    def highest_c(self, now_ns: int) -> float:
        """So far: within a span of constant power it is at one of its ends."""
        return max(self.max_c, self.at(now_ns))

    @property
    def _target_c(self) -> float | None:
        return self._restart_c if self.is_shut else self._limit_c

    def _keep(self, now_ns: int, now_c: float) -> None:
        self._since_ns, self._since_c = now_ns, now_c
        self.max_c = max(self.max_c, now_c)

    def _plan(self) -> None:
        """When the target is crossed, if it lies on the way."""
        target_c, self.due_ns = self._target_c, NEVER
        if target_c is None:
            return
        to_go, whole = self._final_c - target_c, self._final_c - self._since_c
        if self.is_shut:
            to_go, whole = -to_go, -whole
        if whole <= to_go:  # there already
            self.due_ns = self._since_ns
        elif to_go > 0:
            self.due_ns = self._since_ns + math.ceil(self._tau_ns * ln(whole / to_go))


def throttle_curve(profile: DeviceProfile) -> Sequence[Throttle]:
    """The profile's steps in thousandths, at least one."""
    return [
        Throttle(
            above_c=step.above,
            below_c=step.below,
            speed=max(1, round(step.speed * _WHOLE)),
            power=max(0, round((step.speed if step.power is None else step.power) * _WHOLE)),
        )
        for step in profile.throttle
    ]
