"""A request that is ended from outside leaves nothing behind, whatever it was doing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.core.events import (
    Event,
    Outcome,
    RequestArrived,
    RequestEnded,
    SpanEnded,
    TokenDelivered,
    TransferEnded,
)
from testbed.scenarios.schema import Scenario
from testbed.sim.cut import Cut
from testbed.sim.kernel import Wait
from testbed.sim.lifecycle import live
from testbed.sim.world import World
from tests.sim_runs import TINY_SOURCE, ends, of_kind, requests_of, run_events, scenario, server, workload

CRASH = Cut(outcome=Outcome.CHURN, reason="device crashed")


def run_with_a_cut(built: Scenario, at_ns: int, cut: int) -> tuple[World, list[Event]]:
    """Every request arrives on time; at an instant, before all else, one of those under way is interrupted."""
    events: list[Event] = []
    world = World(built, TINY_SOURCE, executor=None, emit=events.append)
    lives = {}

    def arrive() -> Wait[None]:
        for request in requests_of(built):
            yield world.clock.timeout(request.arrival_ns - world.clock.now_ns)
            lives[request.request] = world.clock.process(live(world, request))

    def interrupt() -> Wait[None]:
        yield world.clock.timeout(at_ns)
        if cut in lives and lives[cut].is_alive:
            lives[cut].interrupt(CRASH)

    world.clock.process(interrupt())
    world.clock.process(arrive())
    world.clock.run()
    return world, events


def scenarios() -> Iterator[Scenario]:
    """Two devices, so that a batch holds another; two requests on one of them, so that one waits."""
    asks = workload(arrivals={"kind": "times", "times": ["3 ms", "4 ms"]})
    slow = [{"server": server(memory_bandwidth="2 MB/s"), "max_batch": 2}]
    one = scenario(workload=asks, servers=slow)
    fleet = [one.fleet[0].model_copy(update={"count": 2})]
    for policy in (one.policy, "cloud-only", "edge-only", {"kind": "static", "split": 2, "mode": "recompute"}):
        yield scenario(workload=asks, servers=slow, fleet=fleet, policy=policy)


@pytest.mark.parametrize("built", [*scenarios()], ids=["split", "cloud", "edge", "recompute"])
@pytest.mark.parametrize("cut", [0, 2])
def test_a_cut_at_any_instant_frees_everything_and_spares_the_others(built: Scenario, cut: int) -> None:
    instants = sorted({event.time_ns + late for event in run_events(built) for late in (-1, 0)})
    was_cut = 0
    for at_ns in instants[:: max(1, len(instants) // 40)]:
        world, events = run_with_a_cut(built, at_ns, cut)
        ended = ends(events)
        assert len(ended) == len(of_kind(events, RequestEnded)) == 4
        assert all(ended[other].outcome is Outcome.COMPLETED for other in ended if other != cut)
        for built_server in world._built:
            assert built_server.server.num_outstanding == 0
            assert built_server.server._scheduler.kv_claimed_bytes == 0
            assert built_server.server._scheduler.kv_tokens == 0
        was_cut += check_the_end_of(events, cut, at_ns)
    assert was_cut > 5


def check_the_end_of(events: list[Event], cut: int, at_ns: int) -> bool:
    """Its spans reach to its end, and nothing is told of it afterwards."""
    mine = [event for event in events if getattr(event, "request", None) == cut]
    ended, spans = ends(events)[cut], of_kind(mine, SpanEnded)
    assert mine[-1] is ended
    arrived = of_kind(mine, RequestArrived)[0].time_ns
    assert sum(span.end_ns - span.start_ns for span in spans) == ended.time_ns - arrived
    if ended.outcome is not Outcome.CHURN:
        return False
    assert (ended.time_ns, ended.reason) == (at_ns, "device crashed")
    assert all(event.time_ns <= at_ns for event in of_kind(mine, TokenDelivered) + of_kind(mine, TransferEnded))

    return True
