"""Small clusters at random: whatever is scaled, fails or is routed how, nothing is lost or doubled."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.core.events import (
    EventDigest,
    IterationEnded,
    Outcome,
    RequestAdmitted,
    RequestArrived,
    RequestEnded,
    RequestRequeued,
    ServerChanged,
    SpanEnded,
    TokenDelivered,
)
from tests.sim_runs import group, link, of_kind, run_world, scenario, server, workload

WORKER = server(kernel_overhead="10 ms")
ROUTERS = (
    "least-loaded",
    "round-robin",
    "power-of-two",
    "random",
    {"kind": "kv-affinity", "spill": 1},
    {"kind": "nearest-region"},
    {"kind": "spill-over", "threshold": 2},
)
SIGNALS = (
    {"signal": "queue", "target": 1.5, "min": 0},
    {"signal": "queue", "target": 2, "up": 3, "down": 1, "cooldown": "300 ms"},
    {"signal": "utilisation", "target": 0.6},
    {"signal": "slo", "up": 0.2, "down": 0.05},
)


@st.composite
def clusters(draw):
    """A scenario of at most 24 requests within three seconds."""
    servers = []
    for region in draw(st.sampled_from([["north"], ["north", "south"]])):
        entry = {"name": region, "region": region, "server": WORKER, "count": draw(st.integers(1, 3))}
        if draw(st.booleans()):
            bounds = {"interval": "150 ms", "cold_start": f"{draw(st.sampled_from([0, 200]))} ms", "max": 4}
            entry["autoscale"] = bounds | draw(st.sampled_from(SIGNALS))
        if draw(st.booleans()):
            mean_up, mean_down = draw(st.integers(200, 3000)), draw(st.integers(20, 500))
            entry["failures"] = {"mean_up": f"{mean_up} ms", "mean_down": f"{mean_down} ms"}
        if draw(st.booleans()):
            entry["down"] = [{"at": f"{draw(st.integers(0, 1500))} ms", "until": draw(st.sampled_from([None, "2 s"]))}]
        entry["on_failure"] = draw(st.sampled_from(["fail", "requeue"]))
        servers.append(entry)
    router = draw(st.sampled_from(ROUTERS))
    chosen = {"kind": router} if isinstance(router, str) else router
    times = draw(st.lists(st.integers(0, 3000), min_size=1, max_size=4))
    return scenario(
        seed=draw(st.integers(0, 10**6)),
        policy=draw(st.sampled_from(["cloud-only", {"kind": "static", "split": 2, "codec": "int8"}])),
        router=chosen | {"health_delay": f"{draw(st.sampled_from([0, 0, 250]))} ms"},
        fleet=[group(name, region=name, count=3, link=link(propagation_delay="5 ms")) for name in ("north", "south")],
        servers=servers,
        slo={"ttft": "300 ms", "tpot": "100 ms"},
        workload=workload(arrivals={"kind": "times", "times": sorted(f"{time} ms" for time in times)}),
    )


def digest_of(events):
    digest = EventDigest()
    for event in events:
        digest(event)
    return digest.hexdigest()


def serving_spans(events, end_ns):
    """By server that changes: the times at which it was up or draining."""
    spans, since = {}, {}
    for event in of_kind(events, ServerChanged):
        spans.setdefault(event.server, [])
        if event.state in ("up", "draining"):
            since.setdefault(event.server, event.time_ns)
        elif event.server in since:
            spans[event.server].append((since.pop(event.server), event.time_ns))
    for number, start_ns in since.items():
        spans[number].append((start_ns, end_ns))
    return spans


@settings(max_examples=60, deadline=None)
@given(clusters())
def test_nothing_is_lost_or_doubled_and_nobody_serves_who_is_not_up(built):
    world, events = run_world(built)
    ends = of_kind(events, RequestEnded)
    arrived = of_kind(events, RequestArrived)
    assert sorted(end.request for end in ends) == sorted(event.request for event in arrived)
    assert {end.outcome for end in ends} <= {Outcome.COMPLETED, Outcome.SERVER_FAILURE}
    assert all(slot.server.num_outstanding == 0 for slot in world.cluster.slots)
    for end in ends:
        check_the_account_of(end, events)
    spans = serving_spans(events, world.clock.now_ns)
    for event in of_kind(events, IterationEnded):
        if event.server in spans:
            own = spans[event.server]
            assert any(start <= event.start_ns and event.time_ns <= stop for start, stop in own), event
    for built_server in world.server_ends(world.clock.now_ns):
        told = built_server.operation
        assert told.up_ns + told.draining_ns >= built_server.busy_ns
        assert told.up_ns + told.draining_ns + told.starting_ns + told.down_ns <= world.clock.now_ns
        if built_server.server in spans:
            assert told.serving_ns == sum(stop - start for start, stop in spans[built_server.server])


def check_the_account_of(end, events):
    """One request's times have no gap, its tokens come once and in order, and each loss follows an admission."""
    arrival = of_kind(events, RequestArrived, request=end.request)[0]
    spans = of_kind(events, SpanEnded, request=end.request)
    edges = [(arrival.time_ns, arrival.time_ns), *((span.start_ns, span.end_ns) for span in spans)]
    assert all(following[0] == before[1] for before, following in pairwise(edges))
    assert edges[-1][1] == end.time_ns
    tokens = of_kind(events, TokenDelivered, request=end.request)
    assert [token.index for token in tokens] == list(range(len(tokens)))
    assert end.outcome is not Outcome.COMPLETED or len(tokens) == 4
    admitted = of_kind(events, RequestAdmitted, request=end.request)
    requeued = of_kind(events, RequestRequeued, request=end.request)
    found_nobody = end.reason == "no server takes requests any more"
    assert len(admitted) == len(requeued) + (not found_nobody)
    for before, loss in zip(admitted, requeued, strict=False):
        assert before.server == loss.server
        assert before.time_ns <= loss.time_ns


@settings(max_examples=12, deadline=None)
@given(clusters())
def test_the_same_scenario_gives_the_same_events(built):
    assert digest_of(run_world(built)[1]) == digest_of(run_world(built)[1])
