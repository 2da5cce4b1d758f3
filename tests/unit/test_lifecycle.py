"""One request alone, hop by hop: every time worked out from the laws of its processors and its link."""

from __future__ import annotations

from itertools import pairwise

import pytest

from testbed.actors.costs import CostModel
from testbed.actors.memory import edge_demand, server_kv_bytes, server_weights_bytes
from testbed.core.events import IterationEnded, Outcome, RequestAdmitted, RequestArrived, RequestEnded, TransferEnded
from testbed.core.work import Work
from tests.sim_runs import (
    MS,
    TINY,
    S,
    device,
    ends,
    group,
    link,
    of_kind,
    run_events,
    run_world,
    scenario,
    server,
    spans_of,
    token_times,
    workload,
)

ARRIVAL, PROMPT, OUTPUT = 3 * MS, 5, 4
US = 1_000
HEADER_BYTES = 40  # a packet's, on the link
LAYERS, HIDDEN = 4, 16


def chain(start_ns, pieces):
    """(step, hop, duration) pieces laid end to end; a piece without duration leaves no span."""
    spans = []
    for step, hop, duration_ns in pieces:
        if duration_ns:
            spans.append((step, hop, start_ns, start_ns + duration_ns))
        start_ns += duration_ns
    return spans


def costs(profile):
    return CostModel(profile=profile, shape=TINY, weight_bits=32, kv_bits=32)


def passes():
    """(step, new tokens, past tokens) of the prefill and every decode step."""
    return [(0, PROMPT, 0), *((step, 1, PROMPT + step - 1) for step in range(1, OUTPUT))]


def test_a_request_through_split_link_and_server():
    built = scenario()
    events = run_events(built)
    on_device, on_server = costs(built.fleet[0].device), costs(built.servers[0].server)
    pieces, tokens_at, now = [], [], ARRIVAL
    for step, new, past in passes():
        message = 24 + new * (4 + HIDDEN)  # int8: a header of 24 bytes, then a scale and 16 codes a token
        raw = new * HIDDEN * 4
        hops = [
            ("front", on_device.forward_ns([Work(start=0, stop=2, new_tokens=new, past_tokens=past)])),
            ("encode", on_device.codec_ns(raw, message)),
            ("up_serialise", (message + HEADER_BYTES) * US),
            ("up_propagate", 10 * MS),
            ("decode", on_server.codec_ns(raw, message)),
            ("back", on_server.forward_ns([Work(start=2, stop=LAYERS, new_tokens=new, past_tokens=past)])),
            ("down_serialise", (4 + HEADER_BYTES) * US // 2),
            ("down_propagate", 10 * MS),
        ]
        pieces += [(step, *hop) for hop in hops]
        now += sum(duration_ns for _, duration_ns in hops)
        tokens_at.append(now)
    assert spans_of(events) == chain(ARRIVAL, pieces)
    assert token_times(events) == tokens_at
    (ended,) = of_kind(events, RequestEnded)
    assert (ended.time_ns, ended.outcome, ended.reason) == (now, Outcome.COMPLETED, "length")
    (admitted,) = of_kind(events, RequestAdmitted)
    assert (admitted.time_ns, admitted.split, admitted.codec, admitted.server) == (ARRIVAL, 2, "int8", 0)


def test_the_messages_of_a_split_request():
    events = run_events(scenario())
    up = [event.payload_bytes for event in of_kind(events, TransferEnded, direction="up")]
    down = [event.payload_bytes for event in of_kind(events, TransferEnded, direction="down")]
    assert up == [24 + new * 20 for _, new, _ in passes()]
    assert down == [4] * OUTPUT


def test_a_server_that_has_the_whole_model_goes_on_while_tokens_stream_down():
    built = scenario(policy="cloud-only")
    events = run_events(built)
    on_server = costs(built.servers[0].server)
    up, down = (4 * PROMPT + HEADER_BYTES) * US, (4 + HEADER_BYTES) * US // 2
    pieces = [(0, "up_serialise", up), (0, "up_propagate", 10 * MS)]
    iteration_ends, now = [], ARRIVAL + up + 10 * MS
    for step, new, past in passes():
        back = on_server.forward_ns([Work(start=0, stop=LAYERS, new_tokens=new, past_tokens=past)])
        pieces.append((step, "back", back))
        now += back
        iteration_ends.append(now)
    pieces += [(OUTPUT - 1, "down_serialise", down), (OUTPUT - 1, "down_propagate", 10 * MS)]
    assert spans_of(events) == chain(ARRIVAL, pieces)
    assert [event.time_ns for event in of_kind(events, IterationEnded)] == iteration_ends
    assert min(end - start for start, end in pairwise(iteration_ends)) > down  # no token queues behind another
    assert token_times(events) == [end + down + 10 * MS for end in iteration_ends]
    assert [event.payload_bytes for event in of_kind(events, TransferEnded, direction="up")] == [4 * PROMPT]


def test_a_device_that_holds_the_whole_model_sends_nothing():
    built = scenario(policy="edge-only", servers=[])
    world, events = run_world(built)
    on_device = costs(built.fleet[0].device)
    durations = [
        on_device.forward_ns([Work(start=0, stop=LAYERS, new_tokens=new, past_tokens=past)])
        for _, new, past in passes()
    ]
    assert spans_of(events) == chain(ARRIVAL, [(step, "front", time) for step, time in enumerate(durations)])
    assert token_times(events) == [ARRIVAL + sum(durations[: step + 1]) for step in range(OUTPUT)]
    assert of_kind(events, TransferEnded) == []
    assert of_kind(events, RequestAdmitted)[0].server == -1
    assert world.devices[0].end(world.clock.now_ns).busy_ns == sum(durations)


def test_a_prompt_of_many_packets_waits_for_the_last():
    # 60 tokens: 1224 bytes of payload; 260 payload bytes a packet: 4 full ones and one of 184.
    narrow = group(link=link(mtu="300 B"))
    prompts = {"kind": "random", "length": {"law": "fixed", "value": 60}}
    events = run_events(scenario(fleet=[narrow], workload=workload(prompts=prompts)))
    first = of_kind(events, TransferEnded, direction="up")[0]
    assert (first.num_packets, first.payload_bytes, first.wire_bytes) == (5, 1224, 1224 + 5 * 40)
    assert [span[3] - span[2] for span in spans_of(events) if span[:2] == (0, "up_serialise")] == [1424 * US]


def test_a_device_answers_one_request_at_a_time():
    busy = workload(arrivals={"kind": "times", "times": ["3 ms", "3 ms", "4 ms"]})
    events = run_events(scenario(workload=busy))
    last_ends = [ended.time_ns for _, ended in sorted(ends(events).items())]
    assert [event.time_ns for event in of_kind(events, RequestAdmitted)] == [ARRIVAL, *last_ends[:2]]
    assert spans_of(events, 2)[0] == (0, "device_wait", 4 * MS, last_ends[1])
    lengths = {end - start for start, end in pairwise([ARRIVAL, *last_ends])}
    assert len(lengths) == 1  # each took as long as if it were alone


def test_a_request_too_large_for_its_device_is_out_of_memory_and_the_next_one_is_served():
    tokens = [(4, 1), (4, 200), (4, 1)]
    prompts = {"kind": "ids", "ids": [[1] * new for _, new in tokens]}
    room = edge_demand(TINY, 2, 100, 32, 32).total_bytes
    built = scenario(
        fleet=[group(device=device(memory=f"{room + 10**6} B"))],
        workload=workload(arrivals={"kind": "times", "times": ["1 ms", "2 ms", "3 ms"]}, prompts=prompts),
    )
    world, events = run_world(built)
    outcomes = [(ended.outcome, ended.reason) for _, ended in sorted(ends(events).items())]
    assert outcomes == [
        (Outcome.COMPLETED, "length"),
        (Outcome.OOM, "device memory"),
        (Outcome.COMPLETED, "length"),
    ]
    assert [event.request for event in of_kind(events, RequestAdmitted)] == [0, 2]
    assert token_times(events, 1) == []
    assert ends(events)[1].time_ns == ends(events)[0].time_ns  # refused as soon as its turn came
    assert world.devices[0].peak_memory_bytes == edge_demand(TINY, 2, 1 + 4, 32, 32).total_bytes


def test_a_request_too_large_for_every_server_is_out_of_memory_at_once():
    room = server_weights_bytes(TINY, [2], 32) + server_kv_bytes(TINY, 2, PROMPT + OUTPUT, 32)
    for memory, outcome in ((room, Outcome.COMPLETED), (room - 1, Outcome.OOM)):
        world, events = run_world(scenario(servers=[{"server": server(memory=f"{memory + 10**6} B")}]))
        assert ends(events)[0].outcome is outcome
        if outcome is Outcome.OOM:
            assert (ends(events)[0].time_ns, ends(events)[0].reason) == (ARRIVAL, "server memory")
            assert world.devices[0].peak_memory_bytes == 0
            assert world.server_ends(1)[0].peak_kv_bytes == 0


def test_a_link_that_gives_up_ends_the_request_and_frees_what_it_held():
    dead_end = group(
        link=link(loss=0.99, transport={"kind": "selective-repeat", "max_retransmissions": 0, "timeout": "5 ms"})
    )
    world, events = run_world(scenario(fleet=[dead_end]))
    (ended,) = of_kind(events, RequestEnded)
    assert (ended.outcome, ended.reason) == (Outcome.LINK_TIMEOUT, "up-link timed out")
    assert spans_of(events)[-1][1:] == ("up_retransmit", ended.time_ns - 5 * MS, ended.time_ns)
    assert [event.delivered for event in of_kind(events, TransferEnded)] == [False]
    assert world.devices[0].turn.count == 0


def test_a_stop_leaves_requests_incomplete_and_counts_work_under_way():
    whole = run_events(scenario())
    front_ends = spans_of(whole)[0][3]
    stop = (ARRIVAL + front_ends) // 2
    world, events = run_world(scenario(stop_at=f"{stop} ns"))
    assert world.clock.now_ns == stop
    assert [type(event) for event in events] == [RequestArrived, RequestAdmitted]
    assert world.devices[0].end(stop).busy_ns == stop - ARRIVAL


def test_what_happens_at_the_instant_of_a_stop_does_not_happen_any_more():
    end = ends(run_events(scenario()))[0].time_ns
    assert of_kind(run_events(scenario(stop_at=f"{end} ns")), RequestEnded) == []
    assert len(of_kind(run_events(scenario(stop_at=f"{end + 1} ns")), RequestEnded)) == 1


def test_a_run_with_a_stop_lasts_until_then():
    world, events = run_world(scenario(stop_at="100 s"))
    assert world.clock.now_ns == 100 * S
    assert len(of_kind(events, RequestEnded)) == 1


@pytest.mark.parametrize("policy", ["cloud-only", "edge-only", {"kind": "static", "split": 3, "codec": "int4"}])
def test_one_token_is_enough(policy):
    events = run_events(scenario(policy=policy, workload=workload(output_tokens={"law": "fixed", "value": 1})))
    assert token_times(events) == [ends(events)[0].time_ns]
    assert spans_of(events)[-1][0] == 0  # the prefill's, no step more


def test_a_servers_room_is_free_once_its_last_pass_is_over():
    # Room for one sequence; the second's prefill starts with the first one's last iteration's end, not 10 ms later.
    room = server_weights_bytes(TINY, [2], 32) + server_kv_bytes(TINY, 2, PROMPT + OUTPUT, 32)
    fleet = [group(count=2)]
    events = run_events(scenario(fleet=fleet, servers=[{"server": server(memory=f"{room + 10**6} B")}]))
    iterations = of_kind(events, IterationEnded)
    assert iterations[OUTPUT].start_ns == iterations[OUTPUT - 1].time_ns
    assert iterations[OUTPUT].prefill_tokens == PROMPT
    assert [item.num_waiting for item in iterations[:OUTPUT]] == [1] * OUTPUT
