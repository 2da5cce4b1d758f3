"""What holds in every run, whatever the scenario: told from the events alone."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
from hypothesis import given, settings

from testbed.actors.memory import edge_demand, server_kv_bytes, server_weights_bytes
from testbed.codecs.named import make_codec
from testbed.core.events import (
    EventDigest,
    IterationEnded,
    Outcome,
    RequestAdmitted,
    RequestArrived,
    RequestEnded,
    SpanEnded,
    TokenDelivered,
    TransferEnded,
)
from testbed.sim.choosing import build_policies
from tests.property.test_plain_engine import scenarios
from tests.sim_runs import TINY, ends, of_kind, requests_of, run_events, run_world

EXAMPLES = 40


def by_request(events, kind):
    grouped = defaultdict(list)
    for event in of_kind(events, kind):
        grouped[event.request].append(event)
    return grouped


@settings(max_examples=EXAMPLES)
@given(built=scenarios())
def test_every_request_arrives_once_ends_once_and_nothing_follows_its_end(built):
    events, requests = run_events(built), requests_of(built)
    assert sorted(event.request for event in of_kind(events, RequestArrived)) == [item.request for item in requests]
    assert sorted(event.request for event in of_kind(events, RequestEnded)) == [item.request for item in requests]
    ended = set()
    for event in events:
        if isinstance(event, IterationEnded):
            continue
        assert event.request not in ended
        if isinstance(event, RequestEnded):
            ended.add(event.request)


@settings(max_examples=EXAMPLES)
@given(built=scenarios())
def test_hops_are_contiguous_and_add_up_to_the_end_to_end_time(built):
    events = run_events(built)
    spans = by_request(events, SpanEnded)
    for arrived in of_kind(events, RequestArrived):
        mine, end_ns = spans[arrived.request], ends(events)[arrived.request].time_ns
        assert sum(span.end_ns - span.start_ns for span in mine) == end_ns - arrived.time_ns
        edges = [arrived.time_ns, *(edge for span in mine for edge in (span.start_ns, span.end_ns)), end_ns]
        assert edges == sorted(edges)
        assert all(before.end_ns == after.start_ns for before, after in pairwise(mine))
        assert all(span.start_ns < span.end_ns <= span.time_ns for span in mine)
        assert [span.step for span in mine] == sorted(span.step for span in mine)


@settings(max_examples=EXAMPLES)
@given(built=scenarios())
def test_every_token_of_a_completed_request_is_delivered_once_and_in_order(built):
    events = run_events(built)
    tokens, outputs = by_request(events, TokenDelivered), {item.request: item for item in requests_of(built)}
    for ended in ends(events).values():
        mine = tokens[ended.request]
        indices, times = [event.index for event in mine], [event.time_ns for event in mine]
        assert indices == list(range(len(mine)))
        assert times == sorted(times)
        if ended.outcome is Outcome.COMPLETED:
            assert len(mine) == outputs[ended.request].max_output_tokens
            assert times[-1] == ended.time_ns
        elif ended.outcome is Outcome.OOM:
            assert mine == []
        else:
            assert len(mine) < outputs[ended.request].max_output_tokens


@settings(max_examples=EXAMPLES)
@given(built=scenarios())
def test_out_of_memory_is_told_before_any_work_and_exactly_where_memory_lacks(built):
    world, events = run_world(built)
    admitted = by_request(events, RequestAdmitted)
    capacity = [
        group.server.memory - group.server.reserved_memory - server_weights_bytes(TINY, world.served_splits(), 32)
        for group in built.servers
    ]
    for item in requests_of(built):
        group = built.fleet[item.group]
        (split,) = build_policies(built)[item.group].splits(TINY.num_layers)
        tokens = item.num_prompt_tokens + item.max_output_tokens
        too_large = (
            edge_demand(TINY, split, tokens, 32, 32).total_bytes > group.device.memory - group.device.reserved_memory
        )
        homeless = split < TINY.num_layers and server_kv_bytes(TINY, split, tokens, 32) > max(capacity)
        is_oom = ends(events)[item.request].outcome is Outcome.OOM
        assert is_oom == (too_large or homeless)
        assert len(admitted[item.request]) == (not is_oom)


@settings(max_examples=EXAMPLES)
@given(built=scenarios())
def test_servers_work_on_one_batch_at_a_time_within_their_limits(built):
    world, events = run_world(built)
    racks = [group for group in built.servers for _ in range(group.count)]
    for number, rack in enumerate(racks):
        mine = of_kind(events, IterationEnded, server=number)
        assert [item.iteration for item in mine] == list(range(len(mine)))
        assert all(before.time_ns <= after.start_ns for before, after in pairwise(mine))
        assert all(1 <= item.num_sequences <= rack.max_batch for item in mine)
        assert all(item.decode_tokens <= item.num_sequences for item in mine)
        one_prefill = [item for item in mine if item.prefill_tokens > rack.max_prefill_tokens]
        assert all(item.num_sequences - item.decode_tokens == 1 for item in one_prefill)
        account = world.server_ends(world.clock.now_ns)[number]
        assert account.busy_ns == sum(item.time_ns - item.start_ns for item in mine)
        room = rack.server.memory - rack.server.reserved_memory
        assert account.peak_kv_bytes <= room - server_weights_bytes(TINY, world.served_splits(), 32)


@settings(max_examples=EXAMPLES)
@given(built=scenarios())
def test_servers_run_every_pass_of_every_request_once(built):
    events = run_events(built)
    iterations = of_kind(events, IterationEnded)
    served = {event.request for event in of_kind(events, RequestAdmitted) if event.server >= 0}
    backs = [span for span in of_kind(events, SpanEnded) if span.hop == "back"]
    assert len({(span.request, span.step) for span in backs}) == len(backs)
    assert sum(item.num_sequences for item in iterations) == len(backs)
    lengths = {item.request: item.num_prompt_tokens for item in requests_of(built)}
    prefilled = [span.request for span in backs if span.step == 0]
    assert sum(item.prefill_tokens for item in iterations) == sum(lengths[request] for request in prefilled)
    assert set(prefilled) <= served


@settings(max_examples=EXAMPLES)
@given(built=scenarios())
def test_devices_answer_one_request_at_a_time_in_the_order_of_arrival(built):
    events = run_events(built)
    device_of = {event.request: event.device for event in of_kind(events, RequestArrived)}
    arrival = {event.request: (event.time_ns, event.request) for event in of_kind(events, RequestArrived)}
    admitted = {event.request: event.time_ns for event in of_kind(events, RequestAdmitted)}
    for device in set(device_of.values()):
        mine = [request for request in sorted(device_of, key=arrival.__getitem__) if device_of[request] == device]
        for before, after in pairwise(mine):
            assert ends(events)[before].time_ns <= ends(events)[after].time_ns
            assert after not in admitted or ends(events)[before].time_ns <= admitted[after]


@settings(max_examples=EXAMPLES)
@given(built=scenarios())
def test_messages_have_the_size_that_the_codec_says(built):
    events = run_events(built)
    requests = {item.request: item for item in requests_of(built)}
    for admitted in of_kind(events, RequestAdmitted):
        up = of_kind(events, TransferEnded, request=admitted.request, direction="up")
        prompt = requests[admitted.request].num_prompt_tokens
        law = make_codec(admitted.codec).nbytes
        hidden = TINY.hidden_size
        if admitted.split == 0:
            expected = [4 * prompt]
        elif admitted.server < 0:
            expected = []
        else:
            expected = [law(prompt, hidden), *[law(1, hidden)] * (len(up) - 1)]
        assert [event.payload_bytes for event in up] == expected
        down = of_kind(events, TransferEnded, request=admitted.request, direction="down")
        assert all(event.payload_bytes == 4 for event in down)
        assert [event.delivered for event in up + down].count(False) == 0 or (
            ends(events)[admitted.request].outcome in {Outcome.FAILED, Outcome.LINK_TIMEOUT}
        )


@settings(max_examples=EXAMPLES)
@given(built=scenarios())
def test_a_run_is_repeatable(built):
    def digest(scenario):
        events = EventDigest()
        for event in run_events(scenario):
            events(event)
        return events.hexdigest()

    assert digest(built) == digest(built)


@settings(max_examples=EXAMPLES)
@given(built=scenarios())
def test_a_stop_shows_the_beginning_of_the_same_run(built):
    whole = run_events(built)
    stop_ns = int(np.median([event.time_ns for event in whole])) + 1
    part = run_events(built.model_copy(update={"stop_at": stop_ns}))
    assert part == [event for event in whole if event.time_ns < stop_ns]


@settings(max_examples=EXAMPLES)
@given(built=scenarios())
def test_accounts_agree_with_the_events(built):
    world, events = run_world(built)
    now_ns = world.clock.now_ns
    device_of = {event.request: event.device for event in of_kind(events, RequestArrived)}
    for device in world.devices:
        spans = [span for span in of_kind(events, SpanEnded) if device_of[span.request] == device.device]
        computing = sum(span.end_ns - span.start_ns for span in spans if span.hop in {"front", "encode"})
        assert device.end(now_ns).busy_ns == computing
        for account in device.link_ends():
            moved = of_kind(events, TransferEnded, link=device.device, direction=account.direction)
            assert account.messages == len(moved)
            assert account.payload_bytes == sum(event.payload_bytes for event in moved)
            assert account.wire_bytes == sum(event.wire_bytes for event in moved)
            assert account.retransmissions == sum(event.num_retransmissions for event in moved)
