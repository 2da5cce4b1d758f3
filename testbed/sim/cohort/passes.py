"""A sequence's passes: on its device, over its link, and what comes of an iteration of its server."""

from __future__ import annotations

from testbed.core.events import HOPS, Hop
from testbed.core.request_row import (
    FIRST_TOKEN_NS,
    LAST_TOKEN_NS,
    MAX_OUTPUT_TOKENS,
    OUTPUT_TOKENS,
    PROMPT_TOKENS,
    REQUEST,
)
from testbed.sim.cohort.batches import plan
from testbed.sim.cohort.compiling import compiled
from testbed.sim.cohort.costs import coding_ns, front_ns
from testbed.sim.cohort.heaps import LEAVE_KEY, meld, push_event
from testbed.sim.cohort.links import DOWN, UP, carry
from testbed.sim.cohort.state import (
    AT_ITERATIONS,
    AT_LAWS,
    BACK_NS,
    BATCH,
    CHILD,
    CLAIMED_BYTES,
    COMING,
    COMPUTING_NS,
    DECODE_NS,
    DEVICE_ROW,
    ENCODE_PERCENT,
    GROUP_ROW,
    HIDDEN_BYTES,
    IS_BUSY,
    ITERATION_WIDTH,
    ITERATIONS,
    KV_RESERVED,
    KV_TOKENS,
    KV_TOTAL,
    LEFT_TOKENS,
    MESSAGE_BYTES,
    NEW_TOKENS,
    NOBODY,
    NUM_BATCH,
    NUM_ITERATIONS,
    NUM_PASSES,
    NUM_RESIDENT,
    NUM_WAITING,
    ONE,
    READY_NS,
    REASON_DOWN,
    REASON_LENGTH,
    REASON_UP,
    RECORDS_ITERATIONS,
    SERVER_NUMBER,
    SERVER_ROW,
    SHARE_TOKENS,
    SIBLING,
    SPLIT_LAYER,
    START_NS,
    STREAMS,
    ZERO,
    Cells,
    typed,
)
from testbed.sim.cohort.streams import drained, stream

TOKEN_BYTES = typed(4)  # testbed.actors.calls
_FRONT, _ENCODE = HOPS.index(Hop.FRONT), HOPS.index(Hop.ENCODE)
_SERVER_WAIT, _DECODE, _BACK = HOPS.index(Hop.SERVER_WAIT), HOPS.index(Hop.DECODE), HOPS.index(Hop.BACK)


@compiled
def leave(live: Cells, agenda: Cells, slot: int, time_ns: int, reason: int) -> None:
    """The request ends then."""
    push_event(agenda, time_ns, LEAVE_KEY | live[slot + REQUEST], slot * 8 + reason)


@compiled
def submit(fixed: Cells, live: Cells, agenda: Cells, slot: int, ready_ns: int) -> None:
    """The sequence will be ready for its next pass then."""
    server = live[slot + SERVER_ROW]
    live[slot + READY_NS] = ready_ns
    live[slot + CHILD] = live[slot + SIBLING] = NOBODY
    fixed[server + COMING] = meld(live, fixed[server + COMING], slot)
    plan(fixed, agenda, server, ready_ns)


@compiled
def send_up(fixed: Cells, live: Cells, agenda: Cells, slot: int, now_ns: int, new: int, past: int) -> None:
    """The device's share of a pass, and its message to the server."""
    group, device = live[slot + GROUP_ROW], live[slot + DEVICE_ROW]
    live[slot + NEW_TOKENS] = live[slot + LEFT_TOKENS] = new
    if fixed[group + SPLIT_LAYER] == 0:
        if past:  # the server goes on by itself
            submit(fixed, live, agenda, slot, now_ns)
            return
        size_bytes = new * TOKEN_BYTES
    else:
        size_bytes = fixed[fixed[group + AT_LAWS] + new]
        computing_ns = front_ns(fixed, group, new, past)
        work = (new * fixed[group + HIDDEN_BYTES] + size_bytes) * fixed[group + ENCODE_PERCENT]
        encode_ns = coding_ns(fixed, group, work)
        live[slot + _FRONT] += computing_ns
        live[slot + _ENCODE] += encode_ns
        fixed[device + COMPUTING_NS] += computing_ns + encode_ns
        now_ns += computing_ns + encode_ns
    live[slot + MESSAGE_BYTES] = size_bytes
    there_ns = carry(fixed, live, slot, UP, now_ns, size_bytes)
    if there_ns < 0:
        leave(live, agenda, slot, -there_ns, REASON_UP)
    else:
        submit(fixed, live, agenda, slot, there_ns)


@compiled
def release(fixed: Cells, live: Cells, slot: int) -> None:
    """No pass of this sequence comes any more: its KV is free."""
    server = live[slot + SERVER_ROW]
    if live[slot + KV_TOKENS]:
        fixed[server + NUM_RESIDENT] -= 1
    fixed[server + KV_TOTAL] -= live[slot + KV_TOKENS]
    fixed[server + KV_RESERVED] -= live[slot + CLAIMED_BYTES]
    live[slot + KV_TOKENS] = live[slot + CLAIMED_BYTES] = 0


@compiled
def end(fixed: Cells, live: Cells, agenda: Cells, server: int, now_ns: int) -> None:
    """The iteration under way ends: sequences whose pass is through go on, each on its own."""
    _account(fixed, live, server, now_ns)
    first = server + BATCH
    for place in range(first, first + fixed[server + NUM_BATCH]):
        if live[fixed[place] + LEFT_TOKENS] == 0:
            _go_on(fixed, live, agenda, fixed[place], now_ns)
    fixed[server + IS_BUSY] = 0
    plan(fixed, agenda, server, now_ns)


@compiled
def _account(fixed: Cells, live: Cells, server: int, now_ns: int) -> None:
    count = fixed[server + NUM_BATCH]
    fixed[NUM_PASSES] += count
    if fixed[RECORDS_ITERATIONS]:
        prefill_tokens = all_tokens = ZERO
        for place in range(server + BATCH, server + BATCH + count):
            slot = fixed[place]
            all_tokens += live[slot + SHARE_TOKENS]
            if live[slot + OUTPUT_TOKENS] == 0:
                prefill_tokens += live[slot + SHARE_TOKENS]
        row = live[AT_ITERATIONS] + live[NUM_ITERATIONS] * ITERATION_WIDTH
        live[NUM_ITERATIONS] += 1
        live[row], live[row + 1] = fixed[server + SERVER_NUMBER], fixed[server + ITERATIONS]
        live[row + 2], live[row + 3], live[row + 4] = fixed[server + START_NS], now_ns, count
        live[row + 5], live[row + 6] = prefill_tokens, all_tokens - prefill_tokens
        live[row + 7], live[row + 8] = fixed[server + KV_TOTAL], fixed[server + NUM_WAITING]
    fixed[server + ITERATIONS] += 1


@compiled
def _go_on(fixed: Cells, live: Cells, agenda: Cells, slot: int, now_ns: int) -> None:
    """A sequence has its next token, which goes down; then comes its next pass, or its end."""
    server = live[slot + SERVER_ROW]
    decode_ns, layers_ns = fixed[server + DECODE_NS], fixed[server + BACK_NS]
    live[slot + _SERVER_WAIT] += now_ns - live[slot + READY_NS] - decode_ns - layers_ns
    live[slot + _DECODE] += decode_ns
    live[slot + _BACK] += layers_ns
    num_tokens = live[slot + OUTPUT_TOKENS] + 1
    is_last = num_tokens == live[slot + MAX_OUTPUT_TOKENS]
    if is_last:
        release(fixed, live, slot)
    if fixed[live[slot + GROUP_ROW] + STREAMS]:
        live[slot + OUTPUT_TOKENS] = num_tokens
        stream(fixed, live, slot, now_ns, num_tokens - 1)
        if is_last:
            leave(live, agenda, slot, drained(fixed, live, slot, now_ns), REASON_LENGTH)
        else:
            send_up(fixed, live, agenda, slot, now_ns, ONE, live[slot + PROMPT_TOKENS] + num_tokens - 1)
        return
    there_ns = carry(fixed, live, slot, DOWN, now_ns, TOKEN_BYTES)
    if there_ns < 0:
        leave(live, agenda, slot, -there_ns, REASON_DOWN)
        return
    live[slot + OUTPUT_TOKENS] = num_tokens
    live[slot + LAST_TOKEN_NS] = there_ns
    if num_tokens == 1:
        live[slot + FIRST_TOKEN_NS] = there_ns
    if is_last:
        leave(live, agenda, slot, there_ns, REASON_LENGTH)
    else:
        send_up(fixed, live, agenda, slot, there_ns, ONE, live[slot + PROMPT_TOKENS] + num_tokens - 1)
