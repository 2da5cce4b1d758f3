"""Sessions whose keys and values stay on the server between turns: what is sent, run and found."""

from __future__ import annotations

import pytest

from testbed.actors.costs import CostModel
from testbed.actors.memory import server_kv_bytes, server_weights_bytes
from testbed.codecs.named import size_law
from testbed.core.events import (
    Hop,
    IterationEnded,
    Outcome,
    PrefixFound,
    RequestAdmitted,
    RequestArrived,
    SequencePreempted,
    SequenceResumed,
    SpanEnded,
    TransferEnded,
)
from testbed.core.work import KvDemand
from testbed.results.rows import RequestRows
from testbed.schedulers.memory import PagedBlocks
from tests.sim_runs import TINY, ends, group, of_kind, run_world, scenario, server, workload

SPLIT, BLOCK, PROMPT, OUTPUT = 2, 4, 9, 4
TURN = PROMPT + OUTPUT  # what a turn adds to the history
BLOCK_BYTES = server_kv_bytes(TINY, TINY.num_layers - 1, BLOCK, 32)
INT8 = size_law("int8")


def fixed(value):
    return {"law": "fixed", "value": value}


def talks(turns=3, **changes):
    return workload(
        arrivals={"kind": "times", "times": ["0 s"]},
        prompts={"kind": "random", "length": fixed(PROMPT)},
        output_tokens=fixed(OUTPUT),
        session={"turns": fixed(turns), "think": fixed("100 ms")},
        **changes,
    )


def rack(num_blocks=400, prefix="session", **changes):
    memory = server_weights_bytes(TINY, [SPLIT], 32) + num_blocks * BLOCK_BYTES + 10**6
    cache = {"reserve": "blocks", "block_tokens": BLOCK, "prefix": prefix}
    return {"server": server(memory=f"{memory} B"), "kv_cache": cache, **changes}


def played(*racks, count=1, turns=3, **changes):
    fleet = [group(count=count)]
    built = scenario(fleet=fleet, servers=list(racks), workload=talks(turns), **changes)
    world, events = run_world(built)
    assert {end.outcome for end in ends(events).values()} == {Outcome.COMPLETED}
    return world, events, built


def first_messages(events):
    """Bytes of each request's first message up, in the order of the requests."""
    found = {}
    for event in of_kind(events, TransferEnded, direction="up"):
        found.setdefault(event.request, event.payload_bytes)
    return [found[number] for number in sorted(found)]


def prefills(events):
    return [event.prefill_tokens for event in of_kind(events, IterationEnded) if event.prefill_tokens]


def test_a_later_turn_sends_and_runs_what_is_new_and_its_predecessors_last_token():
    world, events, _ = played(rack())
    # Of a turn the last token is never fed, so positions up to the one before are held.
    held = [0, TURN - 1, 2 * TURN - 1]
    prompts = [event.prompt_tokens for event in of_kind(events, RequestArrived)]
    assert prompts == [PROMPT, TURN + PROMPT, 2 * TURN + PROMPT]
    new = [prompt - past for prompt, past in zip(prompts, held, strict=True)]
    assert prefills(events) == new == [PROMPT, PROMPT + 1, PROMPT + 1]
    assert first_messages(events) == [INT8.nbytes(tokens, TINY.hidden_size) for tokens in new]
    assert [event.kv_tokens for event in of_kind(events, PrefixFound)] == held[1:]
    assert world.server_ends(world.clock.now_ns)[0].prefix_tokens == sum(held)


def test_without_the_setting_every_turn_runs_its_whole_prompt():
    _, events, _ = played(rack(prefix="none"))
    assert prefills(events) == [PROMPT, TURN + PROMPT, 2 * TURN + PROMPT]
    assert not of_kind(events, PrefixFound)


def test_a_turn_whose_keys_were_evicted_is_run_again_from_kept_messages():
    # Two devices take turns. A turn at its longest takes 2 * ceil(26 / 4) = 14 blocks, so 15 never keep two sessions.
    world, events, built = played(rack(15), count=2, turns=2)
    found = {event.request for event in of_kind(events, PrefixFound)}
    later = [event.request for event in of_kind(events, RequestArrived) if event.prompt_tokens > PROMPT]
    again = [number for number in later if number not in found]
    assert again
    assert first_messages(events)[again[0]] == INT8.nbytes(PROMPT + 1, TINY.hidden_size)  # nothing is asked of it twice
    spans = of_kind(events, SpanEnded, request=again[0], step=0)
    profile = built.servers[0].server
    costs = CostModel(profile=profile, shape=TINY, weight_bits=32, kv_bits=32)
    messages = [PROMPT, *[1] * (OUTPUT - 1), PROMPT + 1]
    moved = sum(TINY.hidden_bytes(tokens, 32) + INT8.nbytes(tokens, TINY.hidden_size) for tokens in messages)
    (decode,) = [span for span in spans if span.hop is Hop.DECODE]
    assert decode.end_ns - decode.start_ns == costs.coding_ns([(moved, INT8.effort.decode_percent)])
    assert TURN + PROMPT in prefills(events)
    world.check()


def test_a_turn_on_another_server_sends_its_whole_prompt():
    # Where a session's next turn lands on the other server, nothing is known of it there.
    _, events, _ = played(rack(), rack(name="second"), count=3, turns=2)
    place = {event.request: event.server for event in of_kind(events, RequestAdmitted)}
    asked = {event.request: event for event in of_kind(events, RequestArrived)}
    first = {event.device: place[number] for number, event in asked.items() if event.prompt_tokens == PROMPT}
    sizes = first_messages(events)
    later = [number for number, event in asked.items() if event.prompt_tokens > PROMPT]
    seen = set()
    for number in later:
        same = place[number] == first[asked[number].device]
        tokens = PROMPT + 1 if same else TURN + PROMPT
        seen.add(same)
        assert sizes[number] == INT8.nbytes(tokens, TINY.hidden_size)
    assert seen == {True, False}


@pytest.mark.parametrize("preemption", [{}, {"preemption": "swap", "swap_bandwidth": "1 MB/s"}])
@pytest.mark.parametrize("chunk_tokens", [None, 5])
def test_little_memory_never_loses_a_block_or_a_position(preemption, chunk_tokens):
    few = rack(36, chunk_tokens=chunk_tokens)
    few["kv_cache"] |= preemption
    world, events, _ = played(few, count=4)
    world.check()  # as `simulate` does
    assert len(ends(events)) == 12
    assert of_kind(events, PrefixFound)
    memory = world._built[0].server._scheduler.memory
    assert memory.claimed_bytes == 0


def test_rows_of_requests_add_up_to_the_servers_account():
    few = rack(36)
    world, events, _ = played(few, count=4)
    rows = RequestRows()
    handlers = {SequencePreempted: rows.preempted, SequenceResumed: rows.resumed, PrefixFound: rows.prefix_found}
    for event in events:
        handlers.get(type(event), lambda _: None)(event)
    (account,) = world.server_ends(world.clock.now_ns)
    moves = [sum(column) for column in zip(*rows.moves.values(), strict=True)]
    told = [account.preemptions, account.swapped_bytes, account.recomputed_tokens, account.prefix_tokens]
    assert moves == [*told, 0]  # nobody was requeued
    assert account.preemptions * account.prefix_tokens > 0


def test_a_device_that_has_answered_another_session_meanwhile_sends_the_whole_prompt():
    arrivals = {
        "kind": "times",
        "times": ["0 s", "150 ms"],
    }  # the second opens before the first one's next turn
    asks = {**talks(turns=2), "arrivals": arrivals}
    asks["session"]["think"] = fixed("300 ms")
    _, events = run_world(scenario(fleet=[group()], servers=[rack()], workload=asks))
    asked = {event.request: event.prompt_tokens for event in of_kind(events, RequestArrived)}
    order = [event.request for event in sorted(of_kind(events, RequestAdmitted), key=lambda event: event.time_ns)]
    assert [asked[number] for number in order] == [PROMPT, PROMPT, TURN + PROMPT, TURN + PROMPT]
    assert first_messages(events) == [INT8.nbytes(asked[number], TINY.hidden_size) for number in sorted(asked)]
    assert not of_kind(events, PrefixFound)


def test_a_server_remembers_turns_by_their_cut():
    world, _, _ = played(rack(), turns=1)
    remembers = world._built[0].server.remembers
    assert (remembers(0, SPLIT), remembers(0, SPLIT + 1), remembers(1, SPLIT)) == (TURN - 1, 0, 0)


def test_the_session_parked_longest_ago_goes_first_and_no_more_than_must():
    memory = PagedBlocks(num_blocks=6, block_tokens=BLOCK, block_bytes=1)
    demand = KvDemand(max_tokens=24, num_layers=1, full_bytes=1)
    for request in (1, 2, 3):
        assert memory.claim(request, demand, 2 * BLOCK) == []
    for request in (2, 1, 3):
        memory.park(request, 10 + request)
    assert memory.claimed_bytes == 0
    assert memory.claim(4, demand, 3 * BLOCK, 11) == [12]  # takes over its own two, and one of the oldest others'
    assert memory.claim(5, demand, 4 * BLOCK) is None  # three are left with session 13's, which therefore stays
    assert memory.claim(5, demand, 3 * BLOCK) == [13]
    memory.check()


def found_by(**changes):
    _, events, _ = played(rack(count=3), count=4, turns=4, **changes)
    return events, sum(event.kv_tokens for event in of_kind(events, PrefixFound))


def test_a_router_that_follows_sessions_finds_all_that_there_is_to_find():
    events, found = found_by(router="kv-affinity")
    assert found == 4 * sum(turn * TURN - 1 for turn in (1, 2, 3))  # the last answer's last token was never run
    sessions = {}
    for event in of_kind(events, RequestAdmitted):
        sessions.setdefault(event.server, 0)
    assert len(sessions) == 3
    assert found_by(router="random")[1] < found


def test_a_failure_takes_what_sessions_had_left_behind():
    _, events, _ = played(rack(), turns=12)
    pause_ns = ends(events)[4].time_ns + 50 * 10**6  # of 100 ms
    down = [{"at": f"{pause_ns} ns", "until": f"{pause_ns + 1000} ns"}]
    _, struck, _ = played(rack(down=down), turns=12)
    before, after = (
        {event.request: event.kv_tokens for event in of_kind(told, PrefixFound)} for told in (events, struck)
    )
    assert set(before) == set(range(1, 12))
    assert after == {turn: found for turn, found in before.items() if turn != 5}  # which runs everything again
