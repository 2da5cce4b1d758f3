"""The heat model against the solution of its equation, and the clock against its crossings."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.actors.heat import NEVER, Heat
from testbed.scenarios.profiles import DeviceProfile
from tests.sim_runs import MS, S, device, ends, group, run_events, run_world, scenario, spans_of, workload

RESISTANCE, CAPACITY, AMBIENT = 8.0, 25.0, 22.0
TAU_S = RESISTANCE * CAPACITY


def heat(ambient: float = AMBIENT, **changes: object) -> Heat:
    figures = {"thermal_resistance": f"{RESISTANCE} K/W", "heat_capacity": f"{CAPACITY} J/K"}
    return Heat(DeviceProfile.model_validate(device(**figures, **changes)), ambient)


def step_response(power_w: float, seconds: float, start: float = AMBIENT) -> float:
    final = AMBIENT + RESISTANCE * power_w
    return final + (start - final) * math.exp(-seconds / TAU_S)


@given(power_mw=st.integers(0, 20_000), seconds=st.floats(0, 5_000))
def test_step_response_and_steady_state(power_mw: int, seconds: float) -> None:
    warm = heat()
    warm.drive(0, power_mw)
    now_ns = round(seconds * S)
    assert warm.at(now_ns) == pytest.approx(step_response(power_mw / 1000, now_ns / S), abs=1e-9)
    assert warm.at(10_000 * S) == pytest.approx(AMBIENT + RESISTANCE * power_mw / 1000, abs=1e-9)


@given(powers=st.lists(st.tuples(st.integers(0, 15_000), st.integers(0, 10**12)), max_size=8))
def test_any_sequence_of_powers_solves_the_equation(powers: list[tuple[int, int]]) -> None:
    # The solution written otherwise: the decayed sum of each span's rise above the air.
    warm, now_ns, rise = heat(), 0, 0.0
    for power_mw, lasts_ns in powers:
        warm.drive(now_ns, power_mw)
        now_ns += lasts_ns
        decay = math.exp(-lasts_ns / S / TAU_S)
        rise = rise * decay + RESISTANCE * power_mw / 1000 * (1 - decay)
    assert warm.at(now_ns) == pytest.approx(AMBIENT + rise, abs=1e-8)
    assert warm.highest_c(now_ns) >= warm.at(now_ns)


@given(power_mw=st.integers(6_100, 40_000), asked=st.lists(st.floats(0, 1), max_size=5))
def test_time_to_threshold_is_the_closed_form_and_asking_changes_no_bit(power_mw: int, asked: list[float]) -> None:
    warm = heat(shutdown_temperature="70 degC", restart_temperature="40 degC")
    warm.drive(0, power_mw)
    final = AMBIENT + RESISTANCE * power_mw / 1000
    expected_s = TAU_S * math.log((final - AMBIENT) / (final - 70.0))
    assert warm.due_ns == pytest.approx(expected_s * S, rel=1e-12, abs=2)
    due_ns = warm.due_ns
    for part in sorted(asked):
        warm.at(round(part * due_ns))
        warm.settle(round(part * (due_ns - 1)))
        warm.drive(round(part * due_ns), power_mw)
        assert not warm.is_shut
    warm.settle(due_ns)
    assert warm.is_shut
    assert warm.at(due_ns) == 70.0
    warm.drive(due_ns, 0)
    cooling_s = TAU_S * math.log((70.0 - AMBIENT) / (40.0 - AMBIENT))
    assert warm.due_ns - due_ns == pytest.approx(cooling_s * S, rel=1e-12, abs=2)


def test_a_threshold_out_of_reach_is_never_due() -> None:
    warm = heat(shutdown_temperature="70 degC")
    warm.drive(0, 5_999)  # 22 + 8 x 5.999 is just below
    assert warm.due_ns == NEVER
    warm.drive(0, 7_000)
    warm.settle(warm.due_ns)
    warm.drive(warm.due_ns, 0)
    assert warm.due_ns == NEVER, "without a restart temperature it stays off"


def test_throttling_has_hysteresis() -> None:
    curve = [
        {"above": "50 degC", "below": "45 degC", "speed": "80 %"},
        {"above": "60 degC", "below": "52 degC", "speed": "50 %", "power": "30 %"},
    ]
    warm, now_ns = heat(throttle=curve), 0
    found = {}
    for target, power_mw in ((49, 6_000), (51, 6_000), (61, 6_000), (53, 0), (51, 0), (46, 0), (44, 0)):
        warm.drive(now_ns, power_mw)
        while (warm.at(now_ns) < target) is (power_mw > 0):
            now_ns += 100 * MS
        found[target, power_mw] = warm.throttle(now_ns)
    full, mild, hard = (1000, 1000), (800, 800), (500, 300)
    assert list(found.values()) == [full, mild, hard, hard, mild, mild, full]


def test_a_run_shuts_off_at_the_closed_form_and_comes_back() -> None:
    # The whole model on the device: it computes without a pause, at 6 W, in air of 25 degC.
    figures = {"thermal_resistance": "20 K/W", "heat_capacity": "0.1 J/K", "shutdown_temperature": "100 degC"}
    built = scenario(
        fleet=[group(device=device(**figures, restart_temperature="60 degC"), policy="edge-only", heat={})],
        workload=workload(
            arrivals={"kind": "times", "times": ["0 s", "1 s", "3 s", "9 s"]},
            output_tokens={"law": "fixed", "value": 4000},
        ),
    )
    world, events = run_world(built)
    tau_s, hot, idle = 2.0, 25 + 20 * 6.0, 25 + 20 * 2.0
    off_s = tau_s * math.log((hot - 25) / (hot - 100))
    back_s = off_s + tau_s * math.log((100 - 25) / (60 - 25))
    assert idle == 65
    assert ends(events)[0].time_ns == pytest.approx(off_s * S, abs=3)
    assert {(ends(events)[number].outcome, ends(events)[number].reason) for number in (0, 1)} == {
        ("thermal", "device overheated")
    }, "a request that waits for its turn ends too"
    assert off_s < 3 < back_s
    assert ends(events)[2].reason == "device shut off by heat"
    assert ends(events)[2].time_ns == 3 * S
    # From back_s on it idles towards 65 degC, and goes off again under the last request.
    start = 65 + (60 - 65) * math.exp(-(9 - back_s) / tau_s)
    again_s = 9 + tau_s * math.log((hot - start) / (hot - 100))
    assert ends(events)[3].time_ns == pytest.approx(again_s * S, abs=5)
    account = world.devices[0].end(world.clock.now_ns)
    assert account.state is not None
    assert account.state.shutdowns == 2
    assert account.state.max_temperature_c == 100.0
    assert account.state.off_ns == pytest.approx((back_s - off_s) * S, abs=5)


def test_a_throttled_stage_takes_as_much_longer_as_it_says() -> None:
    figures = {"thermal_resistance": "20 K/W", "heat_capacity": "0.05 J/K"}
    curve = [{"above": "70 degC", "below": "60 degC", "speed": "40 %"}]
    asks = workload(output_tokens={"law": "fixed", "value": 300}, arrivals={"kind": "times", "times": ["0 s"]})
    cool = scenario(fleet=[group(policy="edge-only")], workload=asks)
    hot = scenario(fleet=[group(device=device(**figures, throttle=curve), policy="edge-only", heat={})], workload=asks)
    base = [end - start for _, hop, start, end in spans_of(run_events(cool)) if hop == "front"]
    world, events = run_world(hot)
    spans = [(start, end - start) for _, hop, start, end in spans_of(events) if hop == "front"]
    # At 6 W from 25 degC towards 145, with RC = 1 s; at 40 % of 4 W above idle towards 97: it throttles once.
    from_ns = math.log((145 - 25) / (145 - 70)) * S
    for plain_ns, (start_ns, taken_ns) in zip(base, spans, strict=True):
        assert taken_ns == (-(-plain_ns * 1000 // 400) if start_ns >= from_ns else plain_ns)
    account = world.devices[0].end(world.clock.now_ns).state
    assert account is not None
    assert account.throttled_ns == sum(taken for start, taken in spans if start >= from_ns) > 0
