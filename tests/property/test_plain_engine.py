"""The engine against the plain one: every span, token, message, iteration and end at the same nanosecond."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.actors.memory import edge_demand, server_kv_bytes, server_weights_bytes
from testbed.core.events import IterationEnded, RequestEnded, SpanEnded, TokenDelivered, TransferEnded
from tests.links import arq
from tests.plain_engine import PlainEngine
from tests.sim_runs import TINY, device, ends, link, of_kind, run_events, scenario, server, spans_of, table_of

POLICIES = (
    "cloud-only",
    "edge-only",
    {"kind": "static", "split": 1, "codec": "int4"},
    {"kind": "static", "split": 3, "codec": "raw-float16"},
)
CODECS = ("int8", "raw-float32")


@st.composite
def links(draw):
    jitter = draw(st.sampled_from([None, None, {"law": "gamma", "mean": "4 ms", "std": "3 ms"}]))
    return link(
        rate_up=draw(st.sampled_from(["8 Mbit/s", "200 kbit/s", "1 Gbit/s"])),
        propagation_delay=draw(st.sampled_from(["0 ms", "1 ms", "10 ms"])),
        loss=draw(st.sampled_from([0.0, 0.0, 0.05, 0.4])),
        jitter=jitter,
        mtu="200 B",
        queue=draw(st.sampled_from(["1 MB", "400 B"])),
        transport=arq(timeout="7 ms", max_retransmissions=draw(st.sampled_from([0, 2, 10]))),
    )


@st.composite
def workloads(draw):
    times = draw(st.lists(st.sampled_from(["0 s", "0 s", "1 ms", "20 ms", "300 ms"]), min_size=1, max_size=3))
    poisson = {"kind": "poisson", "rate_per_device": "40 /s", "requests_per_device": 3}
    think = draw(st.sampled_from([{"law": "fixed", "value": "0 s"}, {"law": "exponential", "mean": "20 ms"}]))
    closed = {"kind": "closed", "requests_per_device": 3, "think": think}
    turns = {"law": "uniform", "low": 1, "high": 3}
    return {
        "arrivals": draw(st.sampled_from([{"kind": "times", "times": times}, poisson, closed])),
        "session": draw(st.sampled_from([None, None, {"turns": turns, "think": think}])),
        "prompts": {
            "kind": "random",
            "length": {"law": "uniform", "low": 1, "high": draw(st.sampled_from([1, 4, 40]))},
        },
        "output_tokens": {"law": "uniform", "low": 1, "high": draw(st.integers(1, 6))},
    }


@st.composite
def scenarios(draw):
    num_groups, num_servers = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    fleet = [draw(groups(f"group{index}")) for index in range(num_groups)]
    common = draw(workloads())
    longest = max(most_tokens(item["workload"] or common) for item in fleet)
    splits = {split_of(item["policy"]) for item in fleet} - {TINY.num_layers}
    first = min(splits, default=0)
    sequences = draw(st.sampled_from([0.3, 1.0, 1.0, 2.5, 1000]))  # of the largest that fit into a server's KV cache
    room = server_weights_bytes(TINY, splits, 32) + int(sequences * server_kv_bytes(TINY, first, longest, 32))
    racks = {
        "server": server(memory=f"{room + 10**6} B", kernel_overhead=draw(st.sampled_from(["0 s", "50 us", "5 ms"]))),
        "count": num_servers,
        "max_batch": draw(st.sampled_from([1, 2, 32])),
        "max_prefill_tokens": draw(st.sampled_from([1, 20, 2048])),
    }
    return scenario(
        seed=draw(st.integers(0, 2**32)), fleet=fleet, servers=[racks], workload=common, policy="cloud-only"
    )


def most_tokens(asked):
    """Of a request's prompt and answer: three turns at most are asked and answered."""
    return (asked["prompts"]["length"]["high"] + asked["output_tokens"]["high"]) * (3 if asked["session"] else 1)


def split_of(policy):
    return {"cloud-only": 0, "edge-only": TINY.num_layers}[policy] if isinstance(policy, str) else policy["split"]


@st.composite
def groups(draw, name):
    tokens = draw(st.sampled_from([6, 30, 10_000]))  # an edge-only request with more is out of memory
    room = edge_demand(TINY, 4, tokens, 32, 32).total_bytes
    return {
        "name": name,
        "device": device(memory=f"{room + 10**6} B"),
        "count": draw(st.integers(1, 3)),
        "link": draw(links()),
        "policy": draw(st.sampled_from(POLICIES)),
        "workload": draw(st.none() | workloads()),
    }


@settings(max_examples=150)
@given(built=scenarios())
def test_equals_the_plain_engine_to_the_nanosecond(built):
    events = run_events(built)
    plain = PlainEngine(built, TINY, table_of(built))
    theirs = ends(events)
    for trip in plain.trips:
        number = trip.request.request
        ended = theirs[number]
        assert (ended.time_ns, ended.outcome.value, ended.reason) == trip.outcome
        assert spans_of(events, number) == trip.spans
        assert [event.time_ns for event in of_kind(events, TokenDelivered, request=number)] == trip.token_times
        assert transfers(events, number) == sorted(trip.transfers)
    assert sorted(map(iteration, of_kind(events, IterationEnded))) == sorted(plain.iterations)
    assert len(of_kind(events, RequestEnded)) == len(plain.trips)


def transfers(events, number):
    return sorted(
        (
            event.time_ns,
            event.direction,
            event.sent_ns,
            event.payload_bytes,
            event.wire_bytes,
            event.num_packets,
            event.num_retransmissions,
            event.delivered,
        )
        for event in of_kind(events, TransferEnded, request=number)
    )


def iteration(event):
    return (
        event.time_ns,
        event.server,
        event.iteration,
        event.start_ns,
        event.num_sequences,
        event.prefill_tokens,
        event.decode_tokens,
        event.kv_tokens,
        event.num_waiting,
    )


def test_the_random_scenarios_meet_what_they_are_meant_to_meet():
    # Not a test of the engine: what the strategy reaches, so that the equality above says something.
    seen = set()

    @settings(max_examples=150)
    @given(built=scenarios())
    def look(built):
        events, table = run_events(built), table_of(built)
        seen.update({"chain"} if (table.after >= 0).any() else ())
        seen.update({"history"} if table.history_tokens.any() else ())
        seen.update(event.reason for event in of_kind(events, RequestEnded))
        seen.update(event.hop.value for event in of_kind(events, SpanEnded))
        for event in of_kind(events, IterationEnded):
            seen.update({"batch"} if event.num_sequences > 1 else ())
            seen.update({"waiting"} if event.num_waiting else ())
            seen.update({"mixed"} if event.prefill_tokens and event.decode_tokens else ())

    look()
    assert {
        "length",
        "device memory",
        "server memory",
        "up-link timed out",
        "down-link timed out",
    } <= seen
    assert {
        "chain",
        "history",
        "batch",
        "waiting",
        "mixed",
        "up_retransmit",
        "down_jitter",
        "device_wait",
        "server_wait",
    } <= seen
