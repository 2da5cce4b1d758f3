"""Requests on devices that go off, go away, sleep, slow down or lose their memory: instants told by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed.actors.memory import edge_demand
from testbed.core.errors import ScenarioError
from testbed.core.events import Event, Hop, IterationEnded, Outcome, TransferEnded
from testbed.scenarios.schema import Scenario
from testbed.sim.cohort.eligible import reasons
from tests.sim_runs import (
    MS,
    TINY,
    S,
    device,
    ends,
    group,
    of_kind,
    run_events,
    run_world,
    scenario,
    server,
    spans_of,
    token_times,
    workload,
)


def schedule(*steps: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "schedule", "steps": [{"at": at, "value": value} for at, value in steps], **more}


def asks(*times: str, tokens: int = 4) -> dict[str, object]:
    arrivals = {"kind": "times", "times": list(times)}
    return workload(arrivals=arrivals, output_tokens={"law": "fixed", "value": tokens})


def alone(*times: str, tokens: int = 4, device_has: dict[str, object] | None = None, **changes: Any) -> Scenario:
    """One device that holds the whole model: idle at 2 W, computing at 6 W, and nothing to send."""
    made = group(device=device(**(device_has or {})), policy="edge-only", **changes)
    return scenario(fleet=[made], workload=asks(*times, tokens=tokens))


def ended(events: list[Event]) -> list[tuple[int, str, str]]:
    return [(end.time_ns, end.outcome.value, end.reason) for _, end in sorted(ends(events).items())]


def test_a_battery_runs_down_at_the_exact_nanosecond() -> None:
    # 10 J, of which 9 J may be used: 2 W for a second, then 6 W; a long request runs till then.
    built = alone("1 s", "2 s", "20 s", tokens=4000, device_has={"battery_capacity": "10 J"},
                  battery={"cutoff": "10 %"})  # fmt: skip
    world, events = run_world(built)
    off_ns = S + -(-7 * S // 6)
    assert ended(events) == [
        (off_ns, "battery", "battery ran down"),
        (off_ns, "battery", "battery ran down"),
        (20 * S, "battery", "battery empty"),
    ]
    account = world.devices[0].end(world.clock.now_ns)
    assert account.state is not None
    assert account.energy_j == pytest.approx(9.0, abs=1e-8)
    assert (account.idle_j, account.compute_j) == (pytest.approx(2.0), pytest.approx(7.0, abs=1e-8))
    assert account.busy_ns == off_ns - S
    assert account.state.off_ns == 20 * S - off_ns
    assert account.state.cutoffs == 1


def test_the_stage_under_way_and_the_wait_for_a_turn_are_the_last_spans() -> None:
    built = alone("1 s", "2 s", tokens=4000, device_has={"battery_capacity": "10 J"}, battery={"cutoff": "10 %"})
    events = run_events(built)
    assert spans_of(events, 0)[-1][1] == Hop.CUT_SHORT
    assert [hop for _, hop, _, _ in spans_of(events, 1)] == [Hop.DEVICE_WAIT]


def test_a_charger_brings_a_device_back_at_its_resume_level() -> None:
    # Empty after 5 s of idling at 2 W; from 10 s on 4 W charge it; at 2 J, half a second later, it is back.
    battery = {"resume": "20 %", "charge": schedule(("0 s", "0 W"), ("10 s", "4 W"))}
    built = alone("4 s", "10499 ms", "10500 ms", device_has={"battery_capacity": "10 J"}, battery=battery)
    events = run_events(built)
    reasons = [(outcome, reason) for _, outcome, reason in ended(events)]
    assert reasons == [("completed", "length"), ("battery", "battery empty"), ("completed", "length")]


def test_radio_energy_is_drawn_when_a_message_has_ended() -> None:
    # Split 0: 20 bytes of token ids up at 1 us a byte and header, 1 W; the radio's alone, beside 2 W of idling.
    built = scenario(
        fleet=[group(device=device(battery_capacity="50 J"), battery={}, policy="cloud-only")], workload=asks("3 ms")
    )
    world, events = run_world(built)
    account, links = world.devices[0].end(world.clock.now_ns), world.devices[0].link_ends()
    assert account.state is not None
    sent_ns, received_ns = (link.busy_ns for link in links)
    assert account.transmit_j == pytest.approx(sent_ns / S * 1.0)
    assert account.receive_j == pytest.approx(received_ns / S * 0.5)
    used_j = account.state.battery_start_j - account.state.battery_end_j  # type: ignore[operator]
    assert used_j == pytest.approx(2 * world.clock.now_ns / S + account.transmit_j + account.receive_j)
    assert ended(events)[0][1] == "completed"


def test_a_message_can_empty_the_battery_at_its_end() -> None:
    # The up-link takes 1 kW: the prompt's message alone empties the battery, at the instant of its arrival.
    hungry = device(battery_capacity="1 J", transmit_power="1 kW")
    asked = workload(prompts={"kind": "random", "length": {"law": "fixed", "value": 2000}})
    built = scenario(fleet=[group(device=hungry, battery={}, policy="cloud-only")], workload=asked)
    events = run_events(built)
    (sent,) = of_kind(events, TransferEnded)
    assert ended(events) == [(sent.time_ns, "battery", "battery ran down")]


def test_who_leaves_crashes_or_sleeps_takes_requests_along() -> None:
    churn = schedule(("0 s", "present"), ("1 s", "left"), ("2 s", "present"), ("3 s", "crashed"), ("4 s", "asleep"))
    built = alone("900 ms", "1500 ms", "2900 ms", "3500 ms", "4500 ms", tokens=200, churn=churn)
    world, events = run_world(built)
    assert ended(events) == [
        (S, "churn", "device left"),
        (1500 * MS, "churn", "device away"),
        (3 * S, "churn", "device crashed"),
        (3500 * MS, "churn", "device down after a crash"),
        (4500 * MS, "churn", "device asleep"),
    ]
    account = world.devices[0].end(world.clock.now_ns).state
    assert account is not None
    assert (account.departures, account.off_ns, account.asleep_ns) == (2, 2 * S, 500 * MS)


def test_falling_asleep_ends_requests_unless_they_keep_it_awake() -> None:
    churn = schedule(("0 s", "present"), ("1 s", "asleep"))
    asleep = run_events(alone("900 ms", tokens=200, churn=churn))
    assert ended(asleep) == [(S, "churn", "device fell asleep")]
    world, awake = run_world(
        alone("900 ms", "9 s", tokens=200, churn=churn, wake_for_requests=True, wake_delay="70 ms",
              device_has={"sleep_power": "500 mW"})
    )  # fmt: skip
    plain = run_events(alone("900 ms", "9 s", tokens=200))
    (first, second), (plain_first, plain_second) = ended(awake), ended(plain)
    assert first == plain_first, "it was awake"
    assert second == (plain_second[0] + 70 * MS, "completed", "length")
    assert spans_of(awake, 1)[0][1:] == (Hop.DEVICE_WAIT, 9 * S, 9 * S + 70 * MS)
    account = world.devices[0].end(world.clock.now_ns)
    assert account.state is not None
    assert account.state.asleep_ns == 9 * S - first[0]
    assert account.state.sleep_j == pytest.approx(0.5 * account.state.asleep_ns / S)


def test_the_worst_of_several_reasons_counts() -> None:
    churn = [schedule(("0 s", "asleep")), schedule(("0 s", "present"), ("1 s", "crashed"))]
    events = run_events(alone("500 ms", "1500 ms", churn=churn))
    assert [reason for _, _, reason in ended(events)] == ["device asleep", "device down after a crash"]


def test_an_offset_shifts_a_schedule_and_every_repeats_it() -> None:
    churn = schedule(("0 s", "present"), ("2 s", "left"), every="3 s", offset="500 ms")
    times = ["100 ms", "2400 ms", "2500 ms", "3400 ms", "3500 ms", "5600 ms"]
    events = run_events(alone(*times, tokens=1, churn=churn))
    away = [reason == "device away" for _, _, reason in ended(events)]
    assert away == [True, False, True, True, False, True], "at 0.1 s what holds at 3.1 s"


def test_a_trace_moves_every_device_for_itself(tmp_path: Path) -> None:
    trace = tmp_path / "churn.csv"
    trace.write_text("who,when,what\n1,0.5,crashed\n0,1,left\n0,2,present\n")
    churn = {"kind": "trace", "file": str(trace), "initial": "present", "device_column": "who", "time_column": "when",
             "value_column": "what"}  # fmt: skip
    built = scenario(
        fleet=[group(count=3, policy="edge-only", churn=churn)], workload=asks("200 ms", "1500 ms", "2500 ms")
    )
    events = run_events(built)
    outcomes = [[reason for _, _, reason in ended(events)][place::3] for place in range(3)]
    assert outcomes[0] == ["length", "device away", "length"]
    assert outcomes[1] == ["length", "device down after a crash", "device down after a crash"]
    assert outcomes[2] == ["length", "length", "length"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("device,time\n0,1\n", "fleet[0].churn: the trace has no such column (got 'value'); allowed: device, time"),
        ("device,time,value\n0,x,left\n", "line 2: not a number (got 'x'); allowed: a time"),
        ("device,time,value\n0,-1,left\n", "line 2: negative (got '-1')"),
        ("device,time,value\n0,1,gone\n", "line 2: not one of the choices (got 'gone'); allowed: present, asleep"),
        ("device,time,value\n0,1\n", "line 2: 2 columns, too few"),
        (
            "device,time,value\n1,1,left\n",
            "line 2: no such device in the group (got '1'); allowed: a number from 0 to 0",
        ),
        ("device,time,value\n", "the trace has no rows"),
    ],
)
def test_what_is_wrong_with_a_trace_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    trace = tmp_path / "churn.csv"
    trace.write_text(text)
    churn = {"kind": "trace", "file": str(trace), "initial": "present", "device_column": "device"}
    with pytest.raises(ScenarioError) as raised:
        run_events(alone("1 s", churn=churn))
    assert said in str(raised.value)
    assert "fleet[0].churn" in str(raised.value)
    assert str(trace) in str(raised.value)


def test_servers_learn_of_a_crash_after_the_notice(tmp_path: Path) -> None:
    # One sequence fits the server's memory at a time: the second one waits until the first one's is free.
    room = {"memory": "1060 kB"}
    churn = {"kind": "trace", "initial": "present", "device_column": "device"}

    def second_starts(value: str, notice: str) -> int:
        (tmp_path / "t.csv").write_text(f"device,time,value\n0,0.1,{value}\n")
        fleet = [group(count=2, churn={**churn, "file": str(tmp_path / "t.csv")}, notice_after=notice)]
        asked = workload(
            arrivals={"kind": "times", "times": ["0 s"]},
            prompts={"kind": "random", "length": {"law": "fixed", "value": 150}},
            output_tokens={"law": "fixed", "value": 50},
        )
        events = run_events(scenario(fleet=fleet, servers=[{"server": server(**room)}], workload=asked))
        assert ends(events)[0].time_ns == 100 * MS
        assert ends(events)[1].outcome is Outcome.COMPLETED
        prefills = [item for item in of_kind(events, IterationEnded) if item.prefill_tokens]
        return int(prefills[1].start_ns)

    assert second_starts("crashed", "0 s") == 100 * MS
    assert second_starts("crashed", "700 ms") == 800 * MS
    assert second_starts("left", "700 ms") == 100 * MS, "who leaves says so"


def test_other_programs_take_their_share_of_the_processor() -> None:
    base = [end - start for _, hop, start, end in spans_of(run_events(alone("1 s"))) if hop == Hop.FRONT]
    load = schedule(("0 s", 0), ("1001 ms", "60 %"))
    world, events = run_world(alone("1 s", background={"processor": load}))
    slow = [(start, end - start) for _, hop, start, end in spans_of(events) if hop == Hop.FRONT]
    for plain_ns, (start_ns, taken_ns) in zip(base, slow, strict=True):
        assert taken_ns == (plain_ns if start_ns < 1001 * MS else -(-plain_ns * 1000 // 400))
    account = world.devices[0].end(world.clock.now_ns)
    assert account.state is not None
    assert account.state.background_j == 0, "it comes with the stages and goes on under them alone"


def test_memory_that_others_take_ends_the_request_that_holds_it() -> None:
    demand = edge_demand(TINY, 4, 5 + 200, 32, 32).total_bytes
    free = 10**9 - 10**6
    fits, short = free - demand, free - demand + 1
    others = schedule(("0 s", f"{fits} B"), ("1100 ms", f"{short} B"), ("1800 ms", "0 B"))
    built = alone("1 s", "1050 ms", "1900 ms", tokens=200, background={"memory": others})
    assert ended(run_events(built))[:2] == [
        (1100 * MS, "oom", "other programs took the device's memory"),
        (1100 * MS, "oom", "device memory"),
    ]
    world, events = run_world(built)
    assert ended(events)[2][1] == "completed"
    account = world.devices[0].end(world.clock.now_ns)
    assert account.compute_j == pytest.approx(6 * account.busy_ns / S), "the stage that was given up takes no more"


def test_memory_claimed_as_used_fills_up_token_by_token() -> None:
    room = edge_demand(TINY, 4, 5 + 7, 32, 32).total_bytes
    little = {"memory": f"{room + 10**6} B"}
    assert ended(run_events(alone("1 s", tokens=20, device_has=little)))[0][:2] == (S, "oom")
    world, events = run_world(alone("1 s", tokens=20, device_has=little, kv_claim="as-used"))
    assert ended(events)[0][1:] == ("oom", "keys and values outgrew the device's memory")
    assert len(token_times(events)) == 8, "the prompt's, then one each while 5 + 7 positions last"
    assert world.devices[0].peak_memory_bytes == room


def test_a_run_ends_with_its_last_request_and_at_stop_at_otherwise() -> None:
    churn = {"kind": "random", "states": [{"value": "present", "mean": "1 h"}, {"value": "left", "mean": "1 h"}]}
    world, events = run_world(alone("1 s", churn=churn))
    assert world.clock.now_ns == max(event.time_ns for event in events)
    idle = alone("1 s", device_has={"battery_capacity": "10 Wh"}, battery={}).model_copy(update={"stop_at": 3600 * S})
    world, _ = run_world(idle)
    account = world.devices[0].end(world.clock.now_ns)
    assert account.state is not None
    assert account.energy_j == pytest.approx(2 * 3600, rel=1e-3)
    assert account.state.battery_end_j == pytest.approx(36_000 - account.energy_j)


def test_another_device_changes_nobodys_draws() -> None:
    churn = {"kind": "random", "states": [{"value": "present", "mean": "1 s"}, {"value": "crashed", "mean": "1 s"}]}
    figures = {"battery_capacity": "40 J", "thermal_resistance": "5 K/W", "heat_capacity": "1 J/K"}

    def fleet(count: int) -> list[list[tuple[int, str, str]]]:
        made = group(
            count=count, device=device(**figures), policy="edge-only", churn=churn,
            battery={"initial": {"low": "20 %", "high": "100 %"}},
            heat={"ambient": {"low": "10 degC", "high": "40 degC"}},
            vary={"compute": "20 %", "memory_bandwidth": "20 %"},
        )  # fmt: skip
        poisson = {"kind": "poisson", "rate_per_device": "2 /s", "requests_per_device": 8}
        _, events = run_world(scenario(fleet=[made], workload=workload(arrivals=poisson)))
        arrived = {event.request: event.device for event in events if hasattr(event, "prompt_tokens")}
        told = ends(events)
        return [
            [(told[number].time_ns, told[number].outcome.value, told[number].reason)
             for number in sorted(told) if arrived[number] == place]
            for place in range(count)
        ]  # fmt: skip

    two = fleet(2)
    assert fleet(3)[:2] == two
    assert two[0] != two[1]


def test_devices_that_change_or_differ_need_the_engine_of_processes() -> None:
    quiet = {"record": {"spans": False}}
    assert reasons(scenario(**quiet), TINY.num_layers) == []
    figures = {"battery_capacity": "1 Wh", "thermal_resistance": "5 K/W", "heat_capacity": "60 J/K"}
    for changes in (
        {"battery": {}},
        {"heat": {}},
        {"churn": schedule(("0 s", "present"))},
        {"background": {"memory": "1 B"}},
        {"vary": {"compute": 0.1}},
        {"kv_claim": "as-used"},
    ):
        assert reasons(scenario(fleet=[group(device=device(**figures), **changes)], **quiet), TINY.num_layers)
