"""Servers that start, drain, fail and come back: who gets a request then, and what becomes of it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from testbed.core.events import (
    Hop,
    IterationEnded,
    Outcome,
    RequestAdmitted,
    RequestRequeued,
    ServerChanged,
    ServersScaled,
    SpanEnded,
    TokenDelivered,
)
from tests.sim_runs import MS, S, ends, group, link, of_kind, run_world, scenario, server, token_times, workload

SLOW = server(kernel_overhead="20 ms")  # a pass takes some 100 ms
NEAR = link(propagation_delay="0 s")
FLAP = {"down": [{"server": 0, "at": "1 s", "until": "2 s"}]}


def cloud(count=1, **changes):
    return [{"server": SLOW, "count": count, **changes}]


def at(*times, **changes):
    return workload(arrivals={"kind": "times", "times": list(times)}, **changes)


def states(events):
    return [(event.time_ns, event.server, event.state) for event in of_kind(events, ServerChanged)]


def sent_to(events):
    return {event.request: event.server for event in of_kind(events, RequestAdmitted)}


def check_nobody_is_served_by_a_server_that_is_not_up(events):
    """Iterations lie within times at which the server was up or draining."""
    since = {}
    for event in events:
        if isinstance(event, ServerChanged):
            serves = event.state in ("up", "draining")
            was_ns = since.get(event.server)
            since[event.server] = None if not serves else event.time_ns if was_ns is None else was_ns
        if isinstance(event, IterationEnded) and event.server in since:
            assert since[event.server] is not None, event
            assert since[event.server] <= event.start_ns, event


def run(**changes):
    world, events = run_world(scenario(**changes))
    check_nobody_is_served_by_a_server_that_is_not_up(events)
    return world, events


@pytest.mark.parametrize("policy", ["cloud-only", {"kind": "static", "split": 2, "codec": "int8"}])
def test_a_request_on_a_server_that_fails_ends_at_that_instant(policy):
    world, events = run(servers=cloud(**FLAP), policy=policy, workload=at("950 ms"), fleet=[group(link=NEAR)])
    (end,) = ends(events).values()
    assert (end.outcome, end.reason) == (Outcome.SERVER_FAILURE, "server 0 failed")
    assert end.time_ns == S
    assert of_kind(events, IterationEnded) == []  # the iteration never ends
    assert states(events) == [(0, 0, "up"), (S, 0, "down")]  # the run is over
    assert world.server_ends(S)[0].busy_ns < 60 * MS


def test_a_broken_off_iteration_counts_as_far_as_it_came():
    servers = cloud(2, on_failure="requeue", down=[{"server": 0, "at": "1250 ms", "until": "9 s"}])
    world, events = run(servers=servers, workload=at("950 ms"), fleet=[group(link=NEAR)], policy="cloud-only")
    first = of_kind(events, IterationEnded, server=0)[0]
    assert len(of_kind(events, IterationEnded, server=0)) == 2  # of about 100 ms each, and a third is broken off
    assert world.server_ends(world.clock.now_ns)[0].busy_ns == 1250 * MS - first.start_ns


def test_who_computes_on_the_device_learns_of_it_with_the_next_message():
    fleet = [group(link=link(propagation_delay="300 ms"))]
    _, events = run(servers=cloud(**FLAP), workload=at("850 ms"), fleet=fleet)
    (end,) = ends(events).values()
    assert end.outcome is Outcome.SERVER_FAILURE
    assert S < end.time_ns < 2 * S


def test_a_message_that_finds_its_server_repaired_is_lost_too():
    fleet = [group(link=link(propagation_delay="600 ms"))]
    down = [{"at": "1 s", "until": "1001 ms"}]
    _, events = run(servers=cloud(down=down), workload=at("850 ms"), fleet=fleet)
    assert [end.outcome for end in ends(events).values()] == [Outcome.SERVER_FAILURE]


def test_a_requeued_request_begins_anew_elsewhere_and_delivers_each_token_once():
    servers = cloud(2, on_failure="requeue", down=[{"server": 0, "at": "1250 ms", "until": "9 s"}])
    _, alone = run(servers=cloud(2), workload=at("950 ms"), fleet=[group(link=NEAR)])
    _, events = run(servers=servers, workload=at("950 ms"), fleet=[group(link=NEAR)])
    assert [(e.time_ns, e.server) for e in of_kind(events, RequestRequeued)] == [(1250 * MS, 0)]
    assert [e.server for e in of_kind(events, RequestAdmitted)] == [0, 1]
    assert ends(events)[0].outcome is Outcome.COMPLETED
    assert [token.index for token in of_kind(events, TokenDelivered)] == [0, 1, 2, 3]
    before = [time for time in token_times(alone) if time <= 1250 * MS]
    assert 0 < len(before) < 4
    assert token_times(events)[: len(before)] == before
    # What the first try takes from the start, the second takes from the failure on: the prompt is computed again.
    assert token_times(events)[-1] - 1250 * MS == token_times(alone)[-1] - 950 * MS
    spans = [(span.start_ns, span.end_ns) for span in of_kind(events, SpanEnded)]
    assert all(end == start for (_, end), (start, _) in pairwise(spans))


def test_with_nobody_up_a_request_waits_at_the_router_for_the_repair():
    _, events = run(servers=cloud(**FLAP), workload=at("1200 ms"), fleet=[group(link=NEAR)])
    assert ends(events)[0].outcome is Outcome.COMPLETED
    (waited,) = of_kind(events, SpanEnded, hop=Hop.ROUTER_WAIT)
    assert (waited.start_ns, waited.end_ns) == (1200 * MS, 2 * S)
    assert states(events) == [(0, 0, "up"), (S, 0, "down"), (2 * S, 0, "up")]


def test_with_nobody_to_come_any_more_it_ends():
    servers = cloud(down=[{"at": "1 s"}], on_failure="requeue")
    _, events = run(servers=servers, workload=at("950 ms", "1200 ms"), fleet=[group(link=NEAR, count=2)])
    told = {end.reason for end in ends(events).values()}
    assert told == {"no server takes requests any more"}
    assert {end.outcome for end in ends(events).values()} == {Outcome.SERVER_FAILURE}


def test_a_request_gives_up_after_so_many_losses():
    down = [{"at": f"{at_ms} ms", "until": f"{at_ms + 10} ms"} for at_ms in range(100, 1000, 50)]
    servers = cloud(down=down, on_failure="requeue", max_requeues=3)
    _, events = run(servers=servers, workload=at("90 ms"), fleet=[group(link=NEAR)], policy="cloud-only")
    assert len(of_kind(events, RequestRequeued)) == 3
    assert ends(events)[0].outcome is Outcome.SERVER_FAILURE


def test_the_router_learns_late_of_a_failure_unless_a_request_finds_out():
    fleet = [group(link=NEAR, count=3)]
    down = [{"server": 0, "at": "1 s", "until": "5 s"}]
    arrivals = at("1100 ms")
    router = {"kind": "least-loaded", "health_delay": "2 s"}
    servers = cloud(2, down=down, on_failure="requeue")
    _, events = run(servers=servers, workload=arrivals, fleet=fleet, router=router, policy="cloud-only")
    admitted = [(e.request, e.server) for e in of_kind(events, RequestAdmitted)]
    # Three at one instant: two on their way to server 0 before anybody knows, and both are sent on to server 1.
    assert admitted[:3] == [(0, 0), (1, 1), (2, 0)]
    assert sorted(admitted[3:]) == [(0, 1), (2, 1)]
    assert {end.outcome for end in ends(events).values()} == {Outcome.COMPLETED}


def test_a_repaired_server_gets_requests_when_the_router_knows():
    router = {"kind": "least-loaded", "health_delay": "500 ms"}
    down = [{"at": "1 s", "until": "3 s"}]
    _, events = run(servers=cloud(down=down), workload=at("2 s"), fleet=[group(link=NEAR)], router=router)
    (waited,) = of_kind(events, SpanEnded, hop=Hop.ROUTER_WAIT)
    assert waited.end_ns == 3500 * MS


def test_a_failure_that_is_over_before_anybody_knew_changes_nothing():
    router = {"kind": "least-loaded", "health_delay": "500 ms"}
    down = [{"at": "1 s", "until": "1200 ms"}]
    _, events = run(servers=cloud(down=down), workload=at("1600 ms"), fleet=[group(link=NEAR)], router=router)
    assert of_kind(events, SpanEnded, hop=Hop.ROUTER_WAIT) == []
    assert ends(events)[0].outcome is Outcome.COMPLETED


def scaled(**changes):
    return {
        "signal": "queue",
        "target": 2,
        "interval": "100 ms",
        "cold_start": "250 ms",
        "min": 1,
        "max": 4,
        **changes,
    }


def test_a_step_of_load_starts_servers_a_cold_start_later_and_drains_them_when_it_is_gone():
    # Six requests at 1 s and no others: with 2 a server, three servers from the look at 1.0 s on.
    fleet = [group(link=NEAR, count=6)]
    servers = cloud(autoscale=scaled())
    asks = at("1 s", output_tokens={"law": "fixed", "value": 30})
    _, events = run(servers=servers, workload=asks, fleet=fleet, policy="cloud-only")
    first = of_kind(events, ServersScaled)[0]
    assert (first.time_ns, first.num_before, first.num_after, first.why) == (S, 1, 3, "queue high")
    told = states(events)
    assert told[0] == (0, 0, "up")
    assert [item for item in told if item[2] == "starting"] == [(S, 1, "starting"), (S, 2, "starting")]
    up = [item for item in told if item[2] == "up" and item[0]]
    assert up == [(1250 * MS, 1, "up"), (1250 * MS, 2, "up")]
    assert all(server == 0 for server in sent_to(events).values())


def test_a_draining_server_gets_no_request_and_is_off_when_its_last_one_has_left():
    # Two up at the start with two requests each; with a target of 9 one is enough, so the other drains.
    longer = at("30 ms", output_tokens={"law": "fixed", "value": 9})
    fleet = [
        group("short", link=NEAR, count=2),
        group("long", link=NEAR, count=2, workload=longer),
        group("late", link=NEAR, count=3, workload=at("160 ms")),
    ]
    servers = cloud(2, autoscale=scaled(target=9))
    _, events = run(servers=servers, workload=at("30 ms"), fleet=fleet, policy="cloud-only")
    told = [item for item in states(events) if item[0]]
    assert told[0] == (100 * MS, 1, "draining")
    left = sorted(end.time_ns for request, end in ends(events).items() if sent_to(events)[request] == 1)
    assert left[0] < left[1]
    assert told[1] == (left[1], 1, "off")
    assert sent_to(events) == {0: 0, 1: 1, 2: 0, 3: 1, 4: 0, 5: 0, 6: 0}


def test_the_server_with_the_fewest_requests_is_taken_away():
    long = at("30 ms", output_tokens={"law": "fixed", "value": 30})
    fleet = [group(link=NEAR), group("long", link=NEAR, workload=long)]
    servers = cloud(2, autoscale=scaled(target=9, interval="1 s"))
    _, events = run(servers=servers, workload=at("30 ms"), fleet=fleet, policy="cloud-only")
    assert sent_to(events) == {0: 0, 1: 1}
    assert [item for item in states(events) if item[0]] == [(S, 0, "off")]


def test_cooldown_holds_back_fewer_but_not_more():
    fleet = [group(link=NEAR, count=8)]
    asks = at("50 ms", "6 s")
    changes = {}
    for cooldown in ("0 s", "2 s"):
        servers = cloud(autoscale=scaled(cooldown=cooldown, max=3))
        _, events = run(servers=servers, workload=asks, fleet=fleet, policy="cloud-only")
        changes[cooldown] = [(e.time_ns, e.num_after) for e in of_kind(events, ServersScaled)]
    assert changes["0 s"][0] == changes["2 s"][0] == (100 * MS, 3)
    down = {cooldown: next(time for time, after in told if after < 3) for cooldown, told in changes.items()}
    assert down["2 s"] == 2100 * MS > down["0 s"]


def test_from_none_a_request_waits_for_its_cold_start():
    servers = cloud(count=0, autoscale=scaled(min=0))
    _, events = run(servers=servers, workload=at("1030 ms"), fleet=[group(link=NEAR)], policy="cloud-only")
    (waited,) = of_kind(events, SpanEnded, hop=Hop.ROUTER_WAIT)
    assert waited.end_ns == 1100 * MS + 250 * MS
    assert ends(events)[0].outcome is Outcome.COMPLETED


def test_a_failed_server_is_replaced():
    servers = cloud(autoscale=scaled(), down=[{"server": 0, "at": "1 s"}], on_failure="requeue")
    _, events = run(servers=servers, workload=at("990 ms"), fleet=[group(link=NEAR)], policy="cloud-only")
    (scaling,) = of_kind(events, ServersScaled)
    assert (scaling.time_ns, scaling.num_before, scaling.num_after) == (S, 0, 1)
    assert sent_to(events) == {0: 1}
    assert ends(events)[0].outcome is Outcome.COMPLETED


@pytest.mark.parametrize("home", ["east", "west"])
def test_in_a_topology_the_nearest_server_is_that_of_the_shortest_delay(home):
    edges = [
        {"between": ["middle", "east"], "rate": "1 Gbit/s", "delay": "2 ms" if home == "east" else "9 ms"},
        {"between": ["middle", "west"], "rate": "1 Gbit/s", "delay": "5 ms"},
    ]
    topology = {"nodes": [{"name": name} for name in ("middle", "east", "west")], "edges": edges}
    servers = [{"name": name, "server": SLOW, "at": name} for name in ("west", "east")]
    _, events = run(
        topology=topology, router="nearest-region", fleet=[group(count=3, at="middle")], servers=servers,
        workload=at("10 ms"),
    )  # fmt: skip
    assert set(sent_to(events).values()) == {["west", "east"].index(home)}


def test_regions_by_a_table_and_what_spills_over():
    pairs = [("north", "south", "9 ms"), ("north", "west", "5 ms"), ("south", "west", "1 ms")]
    distances = [{"between": [one, other], "delay": delay} for one, other, delay in pairs]
    router = {"kind": "spill-over", "threshold": 2, "distances": distances}
    servers = [{"name": name, "server": SLOW, "region": name} for name in ("south", "west", "north")]
    fleet = [group(count=6, link=NEAR, region="north")]
    _, events = run(router=router, servers=servers, fleet=fleet, workload=at("10 ms"), policy="cloud-only")
    assert sent_to(events) == {0: 2, 1: 2, 2: 1, 3: 1, 4: 0, 5: 0}
