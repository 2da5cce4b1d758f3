"""A server's iterations: what testbed.sim.server and testbed.schedulers.fifo do, over arrays."""

from __future__ import annotations

import numpy as np

from testbed.core.events import HOPS, Hop
from testbed.core.request_row import (
    FIRST_TOKEN_NS,
    LAST_TOKEN_NS,
    MAX_OUTPUT_TOKENS,
    OUTPUT_TOKENS,
    PROMPT_TOKENS,
    REQUEST,
)
from testbed.sim.cohort.compiling import compiled
from testbed.sim.cohort.costs import back_ns, coding_ns, front_ns
from testbed.sim.cohort.heaps import RANK_SHIFT, meld, push_event, without_root
from testbed.sim.cohort.links import DOWN, UP, carry
from testbed.sim.cohort.state import (
    AT_ITERATIONS,
    AT_LAWS,
    AT_SPLITS,
    BACK_NS,
    BATCH,
    BUSY_NS,
    CHILD,
    CLAIMED_BYTES,
    COMING,
    COMPUTING_NS,
    DECODE_NS,
    DECODE_PERCENT,
    DEVICE_ROW,
    ENCODE_PERCENT,
    FIRST,
    GROUP_ROW,
    HIDDEN_BYTES,
    IS_BUSY,
    ITERATION_WIDTH,
    ITERATIONS,
    ITS_SPLIT,
    KV_CAPACITY,
    KV_RESERVED,
    KV_TOKENS,
    KV_TOTAL,
    LAST,
    LENGTH,
    MAX_BATCH,
    MAX_PREFILL,
    MESSAGE_BYTES,
    NEVER,
    NEW_TOKENS,
    NEXT,
    NOBODY,
    NUM_BATCH,
    NUM_ITERATIONS,
    NUM_PASSES,
    NUM_SPLITS,
    NUM_WAITING,
    ONE,
    PAIRS,
    PEAK_KV,
    PLANNED_NS,
    POSITIONS,
    PREFILLS,
    READY_NS,
    REASON_DOWN,
    REASON_LENGTH,
    REASON_UP,
    RECORDS_ITERATIONS,
    RESERVE_BYTES,
    SERVER_NUMBER,
    SERVER_ROW,
    SIBLING,
    SPLIT_LAYER,
    SPLIT_WIDTH,
    START_NS,
    STEPS,
    TOKENS,
    ZERO,
    I64Array,
)

TOKEN_BYTES = np.int64(4)  # testbed.actors.calls
# Ranks within an instant: a request's end is one of SimPy's normal events, the others are testbed.sim.kernel's.
LEAVE, ADMISSION, ITERATION_END, FORMATION = range(1, 5)
LEAVE_KEY, ADMISSION_KEY, ITERATION_END_KEY, FORMATION_KEY = (np.int64(rank << RANK_SHIFT) for rank in range(1, 5))
_STEPS, _PREFILLS = np.int64(STEPS), np.int64(PREFILLS)
_FRONT, _ENCODE = HOPS.index(Hop.FRONT), HOPS.index(Hop.ENCODE)
_SERVER_WAIT, _DECODE, _BACK = HOPS.index(Hop.SERVER_WAIT), HOPS.index(Hop.DECODE), HOPS.index(Hop.BACK)


@compiled
def leave(live: I64Array, agenda: I64Array, slot: int, time_ns: int, reason: int) -> None:
    """The request ends then."""
    push_event(agenda, time_ns, LEAVE_KEY | live[slot + REQUEST], slot * 8 + reason)


@compiled
def plan(fixed: I64Array, agenda: I64Array, server: int, time_ns: int) -> None:
    """An idle server will look for a batch then, if not before."""
    if not fixed[server + IS_BUSY] and time_ns < fixed[server + PLANNED_NS]:
        fixed[server + PLANNED_NS] = time_ns
        push_event(agenda, time_ns, FORMATION_KEY | fixed[server + SERVER_NUMBER], server)


@compiled
def submit(fixed: I64Array, live: I64Array, agenda: I64Array, slot: int, ready_ns: int) -> None:
    """The sequence will be ready for its next pass then."""
    server = live[slot + SERVER_ROW]
    live[slot + READY_NS] = ready_ns
    live[slot + CHILD] = live[slot + SIBLING] = NOBODY
    fixed[server + COMING] = meld(live, fixed[server + COMING], slot)
    plan(fixed, agenda, server, ready_ns)


@compiled
def send_up(  # noqa: PLR0917 - plain numbers are what compiled code is called with
    fixed: I64Array, live: I64Array, agenda: I64Array, slot: int, now_ns: int, new: int, past: int
) -> None:
    """The device's share of a pass, and its message to the server."""
    group, device = live[slot + GROUP_ROW], live[slot + DEVICE_ROW]
    live[slot + NEW_TOKENS] = new
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
def release(fixed: I64Array, live: I64Array, slot: int) -> None:
    """No pass of this sequence comes any more: its KV is free."""
    server = live[slot + SERVER_ROW]
    fixed[server + KV_TOTAL] -= live[slot + KV_TOKENS]
    fixed[server + KV_RESERVED] -= live[slot + CLAIMED_BYTES]
    live[slot + KV_TOKENS] = live[slot + CLAIMED_BYTES] = 0


@compiled
def _append(fixed: I64Array, live: I64Array, queue: int, slot: int) -> None:
    """To the end of one of a server's queues."""
    live[slot + NEXT] = NOBODY
    if fixed[queue + FIRST] == NOBODY:
        fixed[queue + FIRST] = slot
    else:
        live[fixed[queue + LAST] + NEXT] = slot
    fixed[queue + LAST] = slot
    fixed[queue + LENGTH] += 1


@compiled
def _gather(fixed: I64Array, live: I64Array, server: int, now_ns: int) -> None:
    """Who has come by now joins the queues, in the order of (ready time, request)."""
    root = fixed[server + COMING]
    while root != NOBODY and live[root + READY_NS] <= now_ns:
        rest = without_root(live, root)
        _append(fixed, live, server + (_STEPS if live[root + KV_TOKENS] else _PREFILLS), root)
        root = rest
    fixed[server + COMING] = root


@compiled
def _next(fixed: I64Array, live: I64Array, server: int, prefill_tokens: int) -> int:
    """Who enters the batch next; NOBODY where none can."""
    step, prefill = fixed[server + STEPS], fixed[server + PREFILLS]
    if prefill != NOBODY:
        tokens = prefill_tokens + live[prefill + NEW_TOKENS]
        kv_bytes = fixed[server + KV_RESERVED] + live[prefill + RESERVE_BYTES]
        if (prefill_tokens and tokens > fixed[server + MAX_PREFILL]) or kv_bytes > fixed[server + KV_CAPACITY]:
            prefill = NOBODY
    if step == NOBODY or prefill == NOBODY:
        return max(step, prefill)
    first, then = live[step + READY_NS], live[prefill + READY_NS]
    return step if first < then or (first == then and live[step + REQUEST] < live[prefill + REQUEST]) else prefill


@compiled
def _take(fixed: I64Array, live: I64Array, server: int, slot: int) -> int:
    """Into the batch, from the head of its queue: the tokens of its prompt, where it is one."""
    queue = server + (_STEPS if live[slot + KV_TOKENS] else _PREFILLS)
    fixed[queue + FIRST] = live[slot + NEXT]
    fixed[queue + LENGTH] -= 1
    if live[slot + KV_TOKENS]:
        return ZERO
    live[slot + CLAIMED_BYTES] = live[slot + RESERVE_BYTES]
    fixed[server + KV_RESERVED] += live[slot + RESERVE_BYTES]
    return live[slot + NEW_TOKENS]


@compiled
def _add(fixed: I64Array, live: I64Array, slot: int) -> int:
    """A sequence of the batch being formed, to the sums of its split: the work of decoding its message."""
    group, new, past = live[slot + GROUP_ROW], live[slot + NEW_TOKENS], live[slot + KV_TOKENS]
    split = fixed[group + ITS_SPLIT]
    fixed[split + TOKENS] += new
    fixed[split + POSITIONS] += past + 2 * new
    fixed[split + PAIRS] += new * past + new * (new + 1) // 2
    if not fixed[group + SPLIT_LAYER]:
        return ZERO
    moved_bytes = new * fixed[group + HIDDEN_BYTES] + live[slot + MESSAGE_BYTES]
    return moved_bytes * fixed[group + DECODE_PERCENT]


@compiled
def form(fixed: I64Array, live: I64Array, agenda: I64Array, server: int, now_ns: int) -> None:
    """Begin an iteration over who is ready; without anybody, look again when the next one comes."""
    fixed[server + PLANNED_NS] = NEVER
    _gather(fixed, live, server, now_ns)
    first_split = fixed[AT_SPLITS]
    for split in range(first_split, first_split + fixed[NUM_SPLITS] * SPLIT_WIDTH, SPLIT_WIDTH):
        fixed[split + TOKENS] = fixed[split + POSITIONS] = fixed[split + PAIRS] = 0
    count = prefill_tokens = work = ZERO
    while count < fixed[server + MAX_BATCH]:
        slot = _next(fixed, live, server, prefill_tokens)
        if slot == NOBODY:
            break
        prefill_tokens += _take(fixed, live, server, slot)
        fixed[server + BATCH + count] = slot
        count += 1
        work += _add(fixed, live, slot)
    if count == 0:
        if fixed[server + COMING] != NOBODY:
            plan(fixed, agenda, server, live[fixed[server + COMING] + READY_NS])
        return
    decode_ns = coding_ns(fixed, server, work) if work else ZERO
    layers_ns = back_ns(fixed, server, count)
    fixed[server + IS_BUSY] = 1
    fixed[server + START_NS], fixed[server + NUM_BATCH] = now_ns, count
    fixed[server + DECODE_NS], fixed[server + BACK_NS] = decode_ns, layers_ns
    fixed[server + NUM_WAITING] = fixed[server + STEPS + LENGTH] + fixed[server + PREFILLS + LENGTH]
    fixed[server + PEAK_KV] = max(fixed[server + PEAK_KV], fixed[server + KV_RESERVED])
    fixed[server + BUSY_NS] += decode_ns + layers_ns
    key = ITERATION_END_KEY | fixed[server + SERVER_NUMBER]
    push_event(agenda, now_ns + decode_ns + layers_ns, key, server)


@compiled
def end(fixed: I64Array, live: I64Array, agenda: I64Array, server: int, now_ns: int) -> None:
    """The iteration under way ends: its sequences go on, each on its own."""
    _account(fixed, live, server, now_ns)
    first = server + BATCH
    for place in range(first, first + fixed[server + NUM_BATCH]):
        _go_on(fixed, live, agenda, fixed[place], now_ns)
    fixed[server + IS_BUSY] = 0
    plan(fixed, agenda, server, now_ns)


@compiled
def _account(fixed: I64Array, live: I64Array, server: int, now_ns: int) -> None:
    count, prefill_tokens, all_tokens = fixed[server + NUM_BATCH], ZERO, ZERO
    for place in range(server + BATCH, server + BATCH + count):
        slot = fixed[place]
        if live[slot + KV_TOKENS] == 0:
            prefill_tokens += live[slot + NEW_TOKENS]
        all_tokens += live[slot + NEW_TOKENS]
        live[slot + KV_TOKENS] += live[slot + NEW_TOKENS]
    fixed[server + KV_TOTAL] += all_tokens
    fixed[NUM_PASSES] += count
    if fixed[RECORDS_ITERATIONS]:
        row = live[AT_ITERATIONS] + live[NUM_ITERATIONS] * ITERATION_WIDTH
        live[NUM_ITERATIONS] += 1
        live[row], live[row + 1] = fixed[server + SERVER_NUMBER], fixed[server + ITERATIONS]
        live[row + 2], live[row + 3], live[row + 4] = fixed[server + START_NS], now_ns, count
        live[row + 5], live[row + 6] = prefill_tokens, all_tokens - prefill_tokens
        live[row + 7], live[row + 8] = fixed[server + KV_TOTAL], fixed[server + NUM_WAITING]
    fixed[server + ITERATIONS] += 1


@compiled
def _go_on(fixed: I64Array, live: I64Array, agenda: I64Array, slot: int, now_ns: int) -> None:
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
