"""What becomes of a device on its own: presence, battery, heat, load and power, from one change to the next.

Power is constant between changes: of presence, of other programs' load, of a charger, of a stage that starts or ends,
of battery or heat that shuts the device off or brings it back. `advance` walks from change to change in closed form, so
a device that nobody asks for costs nothing, whatever happens to it meanwhile; when it is asked changes no result.

    power    0 where it left, crashed or is off; sleep_power where it sleeps; the stage's while one runs,
             P_idle + (P_active - P_idle) x the throttle step's power; else P_idle + (P_active - P_idle) x load
    a stage  takes ceil(d / (speed x (1 - load))) of its duration d; throttle step and load as they are when it starts
    a radio  takes transmit_power and receive_power for the time that its link was clocking a message; that energy is
             drawn when a message has ended, all that is due by then

Powers are whole milliwatts, shares whole thousandths, energies whole picojoules. At one instant what is due by time
comes first, in this order: presence, battery, heat; then a stage's end; then what requests do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from testbed.actors.battery import PJ_PER_J, Battery
from testbed.actors.energy import DeviceEnergy
from testbed.actors.heat import NEVER, UNTHROTTLED, Heat
from testbed.core.cast import DeviceStateEnd
from testbed.core.events import Outcome
from testbed.scenarios.device_state import PRESENCES
from testbed.scenarios.profiles import DeviceProfile
from testbed.sim.levels import Levels

_WHOLE = 1000
_MW_PER_W = 1000


class Presence(IntEnum):
    """Of several reasons to be away the last one counts."""

    PRESENT = PRESENCES.index("present")
    ASLEEP = PRESENCES.index("asleep")
    LEFT = PRESENCES.index("left")
    CRASHED = PRESENCES.index("crashed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """Why a device takes no requests: what ends those it has, and those that find it so."""

    outcome: Outcome
    ends: str
    finds: str
    is_silent: bool = True  # servers aren't told


_ASLEEP = Absence(outcome=Outcome.CHURN, ends="device fell asleep", finds="device asleep", is_silent=False)
_LEFT = Absence(outcome=Outcome.CHURN, ends="device left", finds="device away", is_silent=False)
_CRASHED = Absence(outcome=Outcome.CHURN, ends="device crashed", finds="device down after a crash")
_EMPTY = Absence(outcome=Outcome.BATTERY, ends="battery ran down", finds="battery empty")
_HOT = Absence(outcome=Outcome.THERMAL, ends="device overheated", finds="device shut off by heat")
_AWAY = {Presence.LEFT: _LEFT, Presence.CRASHED: _CRASHED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Powers:
    """Of a profile, in whole milliwatts."""

    idle: int
    active: int
    transmit: int
    receive: int
    sleep: int

    @classmethod
    def of(cls, profile: DeviceProfile) -> Powers:
        idle, active = profile.idle_power, profile.active_power
        transmit, receive = profile.transmit_power, profile.receive_power
        watts = {"idle": idle, "active": active, "transmit": transmit, "receive": receive, "sleep": profile.sleep_power}
        return cls(**{state: round(power * _MW_PER_W) for state, power in watts.items()})


@dataclass(slots=True, kw_only=True)
class Account:
    """Time and energy by state so far."""

    idle_pj: int = 0
    background_pj: int = 0  # of other programs, while no stage runs
    compute_pj: int = 0
    transmit_pj: int = 0
    receive_pj: int = 0
    sleep_pj: int = 0
    asleep_ns: int = 0
    off_ns: int = 0  # away, crashed, or shut off by battery or heat
    throttled_ns: int = 0  # of stages
    departures: int = 0  # times that it left or crashed

    @property
    def total_pj(self) -> int:
        computing = self.idle_pj + self.background_pj + self.compute_pj
        return computing + self.transmit_pj + self.receive_pj + self.sleep_pj

    @property
    def energy(self) -> DeviceEnergy:
        states = ("idle", "background", "compute", "transmit", "receive", "sleep")
        return DeviceEnergy(**{f"{state}_j": getattr(self, f"{state}_pj") / PJ_PER_J for state in states})


class Vitals:
    """One device's. Instants never go back."""

    def __init__(
        self,
        powers: Powers,
        *,
        presence: Sequence[Levels] = (),
        load: Levels | None = None,
        charge: Levels | None = None,
        battery: Battery | None = None,
        heat: Heat | None = None,
        wakes: bool = False,
    ) -> None:
        self.account = Account()
        self.battery, self.heat = battery, heat
        self._powers, self._wakes = powers, wakes
        self._levels = (presence, load, charge)
        self._now_ns = 0
        self._num_aboard = 0
        self._busy_until_ns = 0
        self._stage_mw = 0
        self._is_throttled = False
        self._presence, self._load, self._charge_mw = Presence.PRESENT, 0, 0
        self._power_mw = 0
        self._levels_end_ns = 0
        self.look_ns = 0  # when to look again whether it has gone off, if its power stays what it is
        self._settle()

    def advance(self, now_ns: int) -> None:
        """Everything that happens by now has happened."""
        while self._now_ns < now_ns:
            busy_ns = self._busy_until_ns if self._is_computing else NEVER
            end_ns = min(now_ns, self.look_ns, busy_ns)
            self._last(end_ns - self._now_ns)
            self._now_ns = end_ns
            self._settle()

    @property
    def absence(self) -> Absence | None:
        """None where it takes requests, if only by waking up for them."""
        if self._presence >= Presence.LEFT:
            return _AWAY[self._presence]
        if self.battery is not None and self.battery.is_cut:
            return _EMPTY
        if self.heat is not None and self.heat.is_shut:
            return _HOT
        return _ASLEEP if self._presence is Presence.ASLEEP and not self._wakes else None

    @property
    def is_asleep(self) -> bool:
        return self._presence is Presence.ASLEEP and not (self._wakes and self._num_aboard) and not self._is_off

    @property
    def num_offs(self) -> int:
        """How often it has gone off or away."""
        cutoffs = 0 if self.battery is None else self.battery.num_cutoffs
        return self.account.departures + cutoffs + (0 if self.heat is None else self.heat.num_shutdowns)

    def board(self) -> None:
        """One more request is on the device."""
        self._num_aboard += 1
        self._settle()

    def alight(self) -> None:
        """One request less."""
        self._num_aboard -= 1
        self._settle()

    def start_stage(self, duration_ns: int) -> int:
        """A stage of this duration on an idle, cool device starts now: how long it takes."""
        speed, power = UNTHROTTLED if self.heat is None else self.heat.throttle(self._now_ns)
        lasts_ns = -(-duration_ns * _WHOLE * _WHOLE // (speed * (_WHOLE - self._load)))
        self._is_throttled = speed < _WHOLE
        self._stage_mw = self._above_idle(power)
        self._busy_until_ns = self._now_ns + lasts_ns
        self._settle()
        return lasts_ns

    def stop_stage(self) -> None:
        """The stage under way, if any, is given up."""
        self._busy_until_ns = min(self._busy_until_ns, self._now_ns)
        self._settle()

    def radio(self, transmit_ns: int, receive_ns: int) -> None:
        """A message has ended: so long its link has been clocking bits since the one before."""
        transmit_pj, receive_pj = self._powers.transmit * transmit_ns, self._powers.receive * receive_ns
        self.account.transmit_pj += transmit_pj
        self.account.receive_pj += receive_pj
        if self.battery is not None:
            self.battery.draw(transmit_pj + receive_pj)
        self._settle()

    def end(self) -> DeviceStateEnd:
        """The account, by now."""
        account, battery, heat = self.account, self.battery, self.heat
        return DeviceStateEnd(
            background_j=account.energy.background_j,
            sleep_j=account.energy.sleep_j,
            asleep_ns=account.asleep_ns,
            off_ns=account.off_ns,
            throttled_ns=account.throttled_ns,
            departures=account.departures,
            battery_capacity_j=None if battery is None else battery.capacity_pj / PJ_PER_J,
            battery_start_j=None if battery is None else battery.first_pj / PJ_PER_J,
            battery_end_j=None if battery is None else battery.level_pj / PJ_PER_J,
            charged_j=None if battery is None else battery.charged_pj / PJ_PER_J,
            cutoffs=None if battery is None else battery.num_cutoffs,
            max_temperature_c=None if heat is None else heat.highest_c(self._now_ns),
            shutdowns=None if heat is None else heat.num_shutdowns,
        )

    @property
    def _is_computing(self) -> bool:
        return self._now_ns < self._busy_until_ns

    @property
    def _is_off(self) -> bool:
        is_empty = self.battery is not None and self.battery.is_cut
        return self._presence >= Presence.LEFT or is_empty or (self.heat is not None and self.heat.is_shut)

    def _above_idle(self, thousandths: int) -> int:
        return self._powers.idle + (self._powers.active - self._powers.idle) * thousandths // _WHOLE

    def _last(self, duration_ns: int) -> None:
        """So long at the power of now."""
        account, energy_pj = self.account, self._power_mw * duration_ns
        if self._is_off:
            account.off_ns += duration_ns
        elif self.is_asleep:
            account.asleep_ns += duration_ns
            account.sleep_pj += energy_pj
        elif self._is_computing:
            account.compute_pj += energy_pj
            account.throttled_ns += duration_ns if self._is_throttled else 0
        else:
            idle_pj = self._powers.idle * duration_ns
            account.idle_pj += idle_pj
            account.background_pj += energy_pj - idle_pj
        if self.battery is not None:
            self.battery.last(duration_ns, drawn_mw=self._power_mw, charge_mw=self._charge_mw)

    def _settle(self) -> None:
        """What is due at this instant, then the power from now on, and until when it lasts at the most."""
        now_ns = self._now_ns
        if now_ns >= self._levels_end_ns:
            self._read_levels()
        if self.battery is not None:
            self.battery.settle()
        if self.heat is not None:
            self.heat.settle(now_ns)
        self._power_mw = self._power()
        self.look_ns = self._levels_end_ns
        if self.battery is not None:
            due_ns = self.battery.due_ns(drawn_mw=self._power_mw, charge_mw=self._charge_mw)
            self.look_ns = min(self.look_ns, now_ns + due_ns)
        if self.heat is not None:
            self.heat.drive(now_ns, self._power_mw)
            self.look_ns = min(self.look_ns, self.heat.due_ns)

    def _read_levels(self) -> None:
        now_ns = self._now_ns
        presence, load, charge = self._levels
        found = [levels.at(now_ns) for levels in presence]
        was_away = self._presence >= Presence.LEFT
        self._presence = Presence(max((level.value for level in found), default=Presence.PRESENT))
        self.account.departures += self._presence >= Presence.LEFT and not was_away and now_ns > 0
        if load is not None:
            found.append(load.at(now_ns))
            self._load = found[-1].value
        if charge is not None:
            found.append(charge.at(now_ns))
            self._charge_mw = found[-1].value
        self._levels_end_ns = min((level.end_ns for level in found), default=NEVER)

    def _power(self) -> int:
        if self._is_off:
            return 0
        if self.is_asleep:
            return self._powers.sleep
        return self._stage_mw if self._is_computing else self._above_idle(self._load)
