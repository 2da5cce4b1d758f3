"""A device by itself, against one that is stepped nanosecond by nanosecond."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from testbed.actors.battery import PJ_PER_J, Battery
from testbed.sim.levels import Schedule
from testbed.sim.vitals import Powers, Presence, Vitals

POWERS = Powers(idle=3, active=13, transmit=5, receive=2, sleep=1)
END_NS = 400


def schedules(values, max_size=5):
    starts = st.lists(st.integers(1, END_NS), unique=True, max_size=max_size).map(lambda found: [0, *sorted(found)])
    return starts.flatmap(
        lambda found: st.tuples(st.just(found), st.lists(values, min_size=len(found), max_size=len(found)))
    )


def value_at(schedule, now_ns):
    starts, values = schedule
    return values[bisect_right(starts, now_ns) - 1]


@dataclass
class Stepped:
    """The law written as plainly as it can be."""

    presence: tuple
    load: tuple
    charge: tuple
    capacity: int
    level: int
    cutoff: int
    resume: int | None
    wakes: bool
    aboard: int = 0
    busy_until: int = 0
    is_cut: bool = False
    used: int = 0
    states: dict = field(default_factory=lambda: dict.fromkeys(("off", "asleep", "busy", "idle"), 0))
    cutoffs: int = 0

    def settle(self):
        if not self.is_cut and self.level <= self.cutoff:
            self.is_cut, self.cutoffs = True, self.cutoffs + 1
        elif self.is_cut and self.resume is not None and self.level >= self.resume:
            self.is_cut = False

    def state(self, now):
        presence = value_at(self.presence, now)
        if presence >= Presence.LEFT or self.is_cut:
            return "off", 0
        if presence == Presence.ASLEEP and not (self.wakes and self.aboard):
            return "asleep", POWERS.sleep
        if now < self.busy_until:
            return "busy", POWERS.active
        return "idle", POWERS.idle + (POWERS.active - POWERS.idle) * value_at(self.load, now) // 1000

    def step(self, now):
        state, power = self.state(now)
        self.states[state] += 1
        self.used += power
        self.level = min(self.capacity, self.level + value_at(self.charge, now) - power)


@given(data=st.data())
def test_advancing_in_leaps_is_stepping(data):
    presence, load, charge = (
        data.draw(schedules(values))
        for values in (st.integers(0, 3), st.sampled_from([0, 300, 999]), st.integers(0, 20))
    )
    capacity = data.draw(st.integers(50, 3000))
    cutoff, first = data.draw(st.integers(0, capacity // 2)), data.draw(st.integers(capacity // 2 + 1, capacity))
    resume = data.draw(st.none() | st.integers(cutoff + 1, capacity))
    wakes = data.draw(st.booleans())
    battery = Battery(
        capacity_j=capacity / PJ_PER_J,
        initial=first / capacity,
        cutoff=cutoff / capacity,
        resume=None if resume is None else resume / capacity,
    )
    vitals = Vitals(
        POWERS,
        presence=[Schedule(*presence)],
        load=Schedule(*load),
        charge=Schedule(*charge),
        battery=battery,
        wakes=wakes,
    )
    plain = Stepped(presence, load, charge, capacity, first, cutoff, resume, wakes)
    plain.settle()
    acts = data.draw(
        st.dictionaries(st.integers(0, END_NS), st.sampled_from(["board", "alight", "stage", "radio", "ask"]))
    )
    for now in range(END_NS + 1):
        if now in acts:
            vitals.advance(now)
            act(acts[now], vitals, plain, now)
            assert_same(vitals, plain, now)
        plain.step(now)
        plain.settle()
    vitals.advance(END_NS + 1)
    assert_same(vitals, plain, END_NS + 1)
    account = vitals.account
    assert account.off_ns == plain.states["off"]
    assert account.asleep_ns == plain.states["asleep"]
    assert account.off_ns + account.asleep_ns <= END_NS + 1


def act(what, vitals, plain, now):
    if what == "board" or (what == "alight" and plain.aboard):
        plain.aboard += 1 if what == "board" else -1
        vitals.board() if what == "board" else vitals.alight()
    elif what == "stage" and vitals.absence is None and not vitals.is_asleep and now >= plain.busy_until:
        share = 1000 - value_at(plain.load, now)
        lasts = vitals.start_stage(7)
        assert lasts == -(-7 * 1000 // share)
        plain.busy_until = now + lasts
    elif what == "radio":
        vitals.radio(2, 3)
        plain.level -= 2 * POWERS.transmit + 3 * POWERS.receive
        plain.used += 2 * POWERS.transmit + 3 * POWERS.receive
        plain.settle()


def assert_same(vitals, plain, now):
    battery = vitals.battery
    assert (battery.level_pj, battery.is_cut, battery.num_cutoffs) == (plain.level, plain.is_cut, plain.cutoffs)
    assert vitals.account.total_pj == plain.used
    assert battery.first_pj + battery.charged_pj - battery.level_pj == plain.used, "what is gone was used"
    assert (vitals.absence is None) == (plain.state(now)[0] != "off" and not must_not_wake(plain, now))
    assert vitals.is_asleep == (plain.state(now)[0] == "asleep")


def must_not_wake(plain, now):
    return value_at(plain.presence, now) == Presence.ASLEEP and not plain.wakes
