"""What servers do in whole runs: admission, paged KV in split mode, batches over shared layers, the closing checks."""

from __future__ import annotations

import pytest

from testbed.actors.cloud import BackStep, CloudWorker, Part
from testbed.actors.costs import CostModel
from testbed.actors.edge import Payload, Session, Step
from testbed.actors.memory import server_kv_bytes, server_weights_bytes
from testbed.codecs.named import size_law
from testbed.core.events import (
    Hop,
    IterationEnded,
    Outcome,
    SequencePreempted,
    SequenceResumed,
    SpanEnded,
)
from testbed.core.work import Work
from testbed.scenarios.serving import Admission
from testbed.sim.door import Door
from tests.sim_runs import TINY, ends, group, of_kind, run_world, scenario, server, workload

LAYERS, SPLIT, BLOCK = TINY.num_layers, 2, 4
SWAP_BANDWIDTH = 10**6
BLOCK_BYTES = server_kv_bytes(TINY, LAYERS - 1, BLOCK, 32)


def at(*times, prompt=5, output=4):
    return workload(
        arrivals={"kind": "times", "times": list(times)},
        prompts={"kind": "random", "length": {"law": "fixed", "value": prompt}},
        output_tokens={"law": "fixed", "value": output},
    )


def test_a_full_queue_turns_requests_away_before_anything_of_them_runs():
    rack = {"server": server(), "admission": {"max_waiting": 2}}
    world, events = run_world(scenario(fleet=[group(count=5)], servers=[rack], workload=at("0 s")))
    found = ends(events)
    assert [found[number].outcome for number in range(5)] == [Outcome.COMPLETED] * 2 + [Outcome.REJECTED] * 3
    assert {found[number].reason for number in (2, 3, 4)} == {"server queue full"}
    assert all(found[number].time_ns == 0 for number in (2, 3, 4))
    assert world.server_ends(world.clock.now_ns)[0].rejected == 3


def test_a_predicted_wait_counts_who_waits_and_what_those_before_took():
    door = Door(Admission.model_validate({"max_wait": "30 ns"}))
    for number in range(3):
        door.enter(number, now_ns=0)
    assert door.refusal(busy_ns=10**9) == ""  # none has been begun: nothing is known
    door.begin(0)
    assert door.refusal(busy_ns=15) == ""  # two wait, 15 ns each
    assert door.refusal(busy_ns=16) == "predicted wait too long"
    door.begin(1)
    door.begin(1)  # a later share: it has begun already
    assert door.refusal(busy_ns=61) == ""  # one waits, 30 ns
    assert door.refusal(busy_ns=62) == "predicted wait too long"
    door.leave(2, now_ns=5)
    assert door.refusal(busy_ns=10**9) == ""


def test_the_door_notices_who_leaves_without_having_come():
    door = Door(None)
    door.enter(1, now_ns=3)
    door.leave(1, now_ns=10)
    door.check(now_ns=12)
    door.leave(1, now_ns=11)
    with pytest.raises(AssertionError):
        door.check(now_ns=12)


def paged(num_blocks, **cache):
    """A worker with room for so many blocks that runs one sequence at a time."""
    memory = server_weights_bytes(TINY, [SPLIT], 32) + num_blocks * BLOCK_BYTES + 10**6
    blocks = {"reserve": "blocks", "block_tokens": BLOCK, **cache}
    return {"server": server(memory=f"{memory} B", memory_bandwidth="20 MB/s"), "max_batch": 1, "kv_cache": blocks}


def preempting_run(**cache):
    # Two sequences of 5 to 12 positions: 2 to 3 blocks in each of two layers, and 9 blocks in all.
    fleet = [group(count=2)]
    built = scenario(fleet=fleet, servers=[paged(9, **cache)], workload=at("0 s", output=8))
    world, events = run_world(built)
    assert {end.outcome for end in ends(events).values()} == {Outcome.COMPLETED}
    assert all(len(of_kind(events, SpanEnded, request=number, hop=Hop.BACK)) == 8 for number in (0, 1))
    profile = built.servers[0].server
    return world, events, CostModel(profile=profile, shape=TINY, weight_bits=32, kv_bits=32)


def spans_at(events, request, start_ns):
    """The server's work on the pass whose iteration began then, by hop."""
    (iteration,) = of_kind(events, IterationEnded, start_ns=start_ns)
    spans = of_kind(events, SpanEnded, request=request, time_ns=iteration.time_ns)
    return {span.hop: span.end_ns - span.start_ns for span in spans if span.start_ns >= start_ns}, iteration


def test_a_preempted_sequence_is_run_again_from_the_messages_that_the_server_kept():
    world, events, costs = preempting_run()
    resumed = of_kind(events, SequenceResumed)
    assert resumed
    for event in resumed:
        hops, iteration = spans_at(events, event.request, event.time_ns)
        positions = event.recomputed_tokens + 1  # and the step's own
        assert iteration.prefill_tokens == positions
        assert hops[Hop.BACK] == costs.forward_ns([work(positions, 0)])
        codec = size_law("int8")
        messages = [5] + [1] * (positions - 5)
        moved = sum(TINY.hidden_bytes(tokens, 32) + codec.nbytes(tokens, TINY.hidden_size) for tokens in messages)
        assert hops[Hop.DECODE] == costs.coding_ns([(moved, codec.effort.decode_percent)])
    (account,) = world.server_ends(world.clock.now_ns)
    assert account.recomputed_tokens == sum(event.kv_tokens for event in of_kind(events, SequencePreempted)) > 0
    assert account.swapped_bytes == 0


def test_a_swapped_sequence_goes_on_where_it_was_and_pays_for_its_blocks_both_ways():
    world, events, costs = preempting_run(preemption="swap", swap_bandwidth=f"{SWAP_BANDWIDTH} B/s")
    preempted, resumed = of_kind(events, SequencePreempted), of_kind(events, SequenceResumed)
    assert preempted
    for event in preempted:
        assert event.swapped_bytes == 2 * -(-event.kv_tokens // BLOCK) * BLOCK_BYTES
    for event in resumed:
        hops, iteration = spans_at(events, event.request, event.time_ns)
        before = max(it.start_ns for it in of_kind(events, IterationEnded) if it.start_ns < event.time_ns)
        out = sum(it.swapped_bytes for it in preempted if before < it.time_ns <= event.time_ns)
        moved_ns = -(-(event.swapped_bytes + out) * 10**9 // SWAP_BANDWIDTH)
        past = next(it.kv_tokens for it in reversed(preempted) if it.time_ns < event.time_ns)
        assert iteration.decode_tokens == 1
        assert hops[Hop.BACK] == moved_ns + costs.forward_ns([work(1, past)])
    (account,) = world.server_ends(world.clock.now_ns)
    assert account.swapped_bytes == sum(event.swapped_bytes for event in preempted + resumed)
    assert account.recomputed_tokens == 0


@pytest.mark.parametrize(("num_blocks", "outcome"), [(5, Outcome.OOM), (6, Outcome.COMPLETED)])
def test_a_request_that_all_blocks_could_not_hold_is_out_of_memory(num_blocks, outcome):
    built = scenario(servers=[paged(num_blocks)], workload=at("0 s", output=4))  # 3 blocks in each of two layers
    assert ends(run_world(built)[1])[0].outcome is outcome


def work(new, past, start=SPLIT, **more):
    return Work(start=start, stop=LAYERS, new_tokens=new, past_tokens=past, **more)


def part(split, new, past, **more):
    codec = size_law("raw-float32")
    size_bytes = codec.nbytes(new, TINY.hidden_size)
    session = Session(
        request=split,
        sampling_seed=0,
        split=split,
        codec_name="raw-float32",
        codec=codec,
        size_of=lambda num_tokens, past_tokens: size_bytes,
    )
    item = BackStep(
        session=session,
        step=Step(num_tokens=new, past_tokens=past, tokens=None),
        payload=Payload(size_bytes=size_bytes, message=None, encode_ns=0),
        real=False,
    )
    return Part(item=item, **{"num_tokens": new, "past_tokens": past, **more})


def test_sequences_cut_at_different_layers_share_the_layers_behind_both_cuts():
    profile = scenario().servers[0].server
    costs = CostModel(profile=profile, shape=TINY, weight_bits=32, kv_bits=32)
    worker = CloudWorker(costs, None)
    early, late = part(1, 1, 30), part(3, 1, 50)
    both_ns = worker.start([early, late]).back.duration_ns
    alone = [worker.start([item]).back.duration_ns for item in (early, late)]
    first = Work(start=1, stop=3, new_tokens=1, past_tokens=30)
    shared = [Work(start=3, stop=LAYERS, new_tokens=1, past_tokens=past) for past in (30, 50)]
    assert both_ns == costs.forward_ns([first]) + costs.forward_ns(shared) - profile.kernel_overhead
    assert max(alone) < both_ns < sum(alone)


def test_only_the_last_chunk_runs_through_the_head_and_only_the_first_pays_for_the_message():
    costs = CostModel(profile=scenario().servers[0].server, shape=TINY, weight_bits=32, kv_bits=32)
    worker = CloudWorker(costs, None)
    head = part(SPLIT, 10, 0, num_tokens=6, is_last=False)
    tail = part(SPLIT, 10, 0, num_tokens=4, past_tokens=6, is_first=False, is_opened=True)
    started = [worker.start([item]) for item in (head, tail)]
    assert [item.back.duration_ns for item in started] == [
        costs.forward_ns([work(6, 0, has_head=False)]),
        costs.forward_ns([work(4, 6)]),
    ]
    assert costs.forward_ns([work(6, 0, has_head=False)]) < costs.forward_ns([work(6, 0)])
    assert started[0].decode_ns == worker.start([Part.whole(head.item)]).decode_ns > 0
    assert started[1].decode_ns == 0


def test_a_run_that_loses_a_block_is_an_internal_error():
    world, _ = run_world(scenario(servers=[paged(40)], workload=at("0 s")))
    world.check()
    world._built[0].server._scheduler.memory.free_blocks -= 1
    with pytest.raises(AssertionError, match="block"):
        world.check()
