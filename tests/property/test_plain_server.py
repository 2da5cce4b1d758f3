"""The engine's servers against plain ones: every iteration, token and preemption at the same nanosecond."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.actors.costs import CostModel
from testbed.actors.memory import server_kv_bytes, server_weights_bytes
from testbed.core.events import (
    Hop,
    IterationEnded,
    RequestArrived,
    SequencePreempted,
    SequenceResumed,
    SpanEnded,
    TransferEnded,
)
from testbed.core.work import Work
from tests.plain_server import RULES, PlainServer, Sequence, run
from tests.sim_runs import TINY, ends, group, link, of_kind, run_world, scenario, server, workload

LAYERS = TINY.num_layers
TOKEN_BYTES = server_kv_bytes(TINY, 0, 1, 32)
SWAP_BANDWIDTH = 10**6
ORDERS = {
    "fifo": "fifo",
    "shortest-prompt": "shortest-first",
    "shortest-output": {"kind": "shortest-first", "by": "output"},
    "deadline": {"kind": "earliest-deadline", "ttft": "40 ms", "tpot": "3 ms"},
    "fair": "fair",
}
FAST = link(rate_up="100 Gbit/s", rate_down="100 Gbit/s", propagation_delay="0 s")


@st.composite
def rules(draw):
    """The limits of one server, in the plain model's terms."""
    blocks = draw(st.sampled_from([None, 40, 44, 60, 80]))
    return SimpleNamespace(
        max_batch=draw(st.sampled_from([1, 3, 32])),
        max_prefill_tokens=draw(st.sampled_from([6, 2048])),
        chunk_tokens=draw(st.sampled_from([None, 2, 7, 30])),
        priority=draw(st.sampled_from(["arrival", "decode", "prefill"])),
        max_resident=draw(st.sampled_from([None, None, 1, 3])),
        order=draw(st.sampled_from(sorted(ORDERS))),
        ttft=40_000_000,
        tpot=3_000_000,
        blocks=blocks,
        block_tokens=4,
        swap=blocks is not None and draw(st.booleans()),
    )


def scenario_of(chosen, asks, count, seed, kv_tokens):
    cache = {"reserve": "full"}
    kv_bytes = kv_tokens * TOKEN_BYTES
    if chosen.blocks is not None:
        cache = {"reserve": "blocks", "block_tokens": chosen.block_tokens}
        kv_bytes = chosen.blocks * chosen.block_tokens * TOKEN_BYTES // LAYERS
        if chosen.swap:
            cache |= {"preemption": "swap", "swap_bandwidth": f"{SWAP_BANDWIDTH} B/s"}
    room = server_weights_bytes(TINY, [0], 32) + kv_bytes
    rack = {
        "server": server(memory=f"{room + 10**6} B", memory_bandwidth="20 MB/s"),
        "kv_cache": cache,
        "scheduler": ORDERS[chosen.order],
        **{key: getattr(chosen, key) for key in ("max_batch", "max_prefill_tokens", "chunk_tokens")},
        **{key: getattr(chosen, key) for key in ("priority", "max_resident")},
    }
    fleet = [group(count=count, link=FAST)]
    return scenario(policy="cloud-only", fleet=fleet, servers=[rack], workload=asks, seed=seed)


def plain_of(chosen, profile, kv_tokens):
    costs = CostModel(profile=profile, shape=TINY, weight_bits=32, kv_bits=32)

    def iteration_ns(parts, swapped_blocks):
        works = [
            Work(start=0, stop=LAYERS, new_tokens=new, past_tokens=past, has_head=gives) for new, past, gives in parts
        ]
        swapped_bytes = swapped_blocks * chosen.block_tokens * TOKEN_BYTES // LAYERS
        return costs.forward_ns(works) + -(-swapped_bytes * 10**9 // SWAP_BANDWIDTH)

    return PlainServer(chosen, kv_capacity=kv_tokens, iteration_ns=iteration_ns)


def arrived(events):
    """The sequences as they became ready at the server."""
    asked = {event.request: event for event in of_kind(events, RequestArrived)}
    first = {}
    for event in of_kind(events, TransferEnded, direction="up"):
        first.setdefault(event.request, event.time_ns)
    return [
        Sequence(
            number=number,
            ready=ready,
            prompt=asked[number].prompt_tokens,
            output=asked[number].max_output_tokens,
            device=asked[number].device,
            arrival=asked[number].time_ns,
            layers=LAYERS,
        )
        for number, ready in first.items()
    ]


@st.composite
def cases(draw):
    chosen = draw(rules())
    poisson = {
        "kind": "poisson",
        "rate_per_device": draw(st.sampled_from(["20 /s", "300 /s"])),
        "requests_per_device": 2,
    }
    asks = workload(
        arrivals=draw(st.sampled_from([poisson, {"kind": "times", "times": ["0 s", "0 s", "30 ms"]}])),
        prompts={"kind": "random", "length": {"law": "uniform", "low": 1, "high": draw(st.sampled_from([1, 12, 20]))}},
        output_tokens={"law": "uniform", "low": 1, "high": draw(st.sampled_from([1, 12, 20, 20]))},
    )
    kv_tokens = draw(st.sampled_from([45, 100, 5000]))
    return (
        chosen,
        kv_tokens,
        scenario_of(chosen, asks, draw(st.sampled_from([1, 3, 6, 8])), draw(st.integers(0, 2**32)), kv_tokens),
    )


def compare(chosen, kv_tokens, built):
    world, events = run_world(built)
    sequences = arrived(events)
    plain = plain_of(chosen, built.servers[0].server, kv_tokens)
    run([plain], sequences)
    ended = of_kind(events, IterationEnded)
    assert [
        (it.start_ns, it.time_ns, it.num_sequences, it.prefill_tokens + it.decode_tokens, it.kv_tokens) for it in ended
    ] == plain.iterations
    for item in sequences:
        given_ns = [span.end_ns for span in of_kind(events, SpanEnded, request=item.number, hop=Hop.BACK)]
        assert given_ns == item.token_times
    preempted = [(it.time_ns, it.request, it.kv_tokens) for it in of_kind(events, SequencePreempted)]
    assert preempted == plain.preemptions
    (account,) = world.server_ends(world.clock.now_ns)
    assert account.preemptions == len(preempted)
    resumed = of_kind(events, SequenceResumed)
    assert account.recomputed_tokens == sum(it.recomputed_tokens for it in resumed)
    assert account.recomputed_tokens == (0 if chosen.swap else sum(kv for _, _, kv in preempted))
    assert {end.outcome.value for end in ends(events).values()} <= {"completed", "oom"}
    return events


def test_equals_the_plain_server_to_the_nanosecond():
    seen = set()

    @settings(max_examples=80)
    @given(case=cases())
    def equal(case):
        events = compare(*case)
        chosen = case[0]
        if of_kind(events, SequencePreempted):
            seen.update({("preempted", "swap" if chosen.swap else "recompute"), ("preempted", chosen.priority)})
            seen.add(("preempted", "chunks" if chosen.chunk_tokens else "whole"))
        seen.update({"waiting"} if any(event.num_waiting for event in of_kind(events, IterationEnded)) else ())

    equal()
    kinds = ("swap", "recompute", "arrival", "decode", "prefill", "chunks", "whole")
    assert {"waiting", *(("preempted", kind) for kind in kinds)} <= seen  # what the strategy is meant to reach


def test_the_defaults_are_the_plain_rules():
    asks = workload(arrivals={"kind": "times", "times": ["0 s", "1 ms", "1 ms"]})
    compare(RULES, 5000, scenario_of(RULES, asks, 3, 1, 5000))
