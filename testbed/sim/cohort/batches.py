"""Forming a server's next batch: what testbed.schedulers.batching does for fifo, over arrays."""

from __future__ import annotations

from testbed.core.request_row import (
    REQUEST,
)
from testbed.sim.cohort.compiling import compiled
from testbed.sim.cohort.costs import back_ns, coding_ns
from testbed.sim.cohort.heaps import FORMATION_KEY, ITERATION_END_KEY, push_event, without_root
from testbed.sim.cohort.state import (
    ARRIVAL_FIRST,
    AT_SPLITS,
    BACK_NS,
    BATCH,
    BUSY_NS,
    CHUNK,
    CLAIMED_BYTES,
    COMING,
    DECODE_FIRST,
    DECODE_NS,
    DECODE_PERCENT,
    FIRST,
    GROUP_ROW,
    HIDDEN_BYTES,
    IS_BUSY,
    ITS_SPLIT,
    KV_CAPACITY,
    KV_RESERVED,
    KV_TOKENS,
    KV_TOTAL,
    LAST,
    LEFT_TOKENS,
    LENGTH,
    MAX_BATCH,
    MAX_PREFILL,
    MAX_RESIDENT,
    MESSAGE_BYTES,
    NEVER,
    NEW_TOKENS,
    NEXT,
    NOBODY,
    NUM_BATCH,
    NUM_RESIDENT,
    NUM_SPLITS,
    NUM_WAITING,
    PAIRS,
    PARTIAL,
    PEAK_KV,
    PLANNED_NS,
    POSITIONS,
    PREFILL_FIRST,
    PREFILLS,
    PRIORITY,
    READY_NS,
    RESERVE_BYTES,
    SERVER_NUMBER,
    SHARE_TOKENS,
    SPLIT_LAYER,
    SPLIT_WIDTH,
    START_NS,
    STEPS,
    TOKENS,
    ZERO,
    Cells,
    typed,
)

_STEPS, _PREFILLS = typed(STEPS), typed(PREFILLS)


@compiled
def plan(fixed: Cells, agenda: Cells, server: int, time_ns: int) -> None:
    """An idle server will look for a batch then, if not before."""
    if not fixed[server + IS_BUSY] and time_ns < fixed[server + PLANNED_NS]:
        fixed[server + PLANNED_NS] = time_ns
        push_event(agenda, time_ns, FORMATION_KEY | fixed[server + SERVER_NUMBER], server)


@compiled
def _append(fixed: Cells, live: Cells, queue: int, slot: int) -> None:
    """To the end of one of a server's queues."""
    live[slot + NEXT] = NOBODY
    if fixed[queue + FIRST] == NOBODY:
        fixed[queue + FIRST] = slot
    else:
        live[fixed[queue + LAST] + NEXT] = slot
    fixed[queue + LAST] = slot
    fixed[queue + LENGTH] += 1


@compiled
def _gather(fixed: Cells, live: Cells, server: int, now_ns: int) -> None:
    """Who has come by now joins the queues, in the order of (ready time, request)."""
    root = fixed[server + COMING]
    while root != NOBODY and live[root + READY_NS] <= now_ns:
        rest = without_root(live, root)
        _append(fixed, live, server + (_STEPS if live[root + KV_TOKENS] else _PREFILLS), root)
        root = rest
    fixed[server + COMING] = root


@compiled
def _may_go(fixed: Cells, live: Cells, server: int, prefill: int) -> bool:
    """Whether there is room for its sequence and its KV."""
    if live[prefill + KV_TOKENS]:
        return True
    kv_bytes = fixed[server + KV_RESERVED] + live[prefill + RESERVE_BYTES]
    return fixed[server + NUM_RESIDENT] < fixed[server + MAX_RESIDENT] and kv_bytes <= fixed[server + KV_CAPACITY]


@compiled
def _is_first(fixed: Cells, live: Cells, server: int, step: int, prefill: int) -> bool:
    """Of a step and a prefill that both could go."""
    if fixed[server + PRIORITY] != ARRIVAL_FIRST:
        return fixed[server + PRIORITY] == DECODE_FIRST
    first, then = live[step + READY_NS], live[prefill + READY_NS]
    return first < then or (first == then and live[step + REQUEST] < live[prefill + REQUEST])


@compiled
def _take_step(fixed: Cells, live: Cells, server: int) -> int:
    """The head of the steps, into the batch: it runs whole."""
    slot = fixed[server + STEPS]
    fixed[server + STEPS] = live[slot + NEXT]
    fixed[server + STEPS + LENGTH] -= 1
    live[slot + SHARE_TOKENS] = live[slot + LEFT_TOKENS]
    return slot


@compiled
def _take_prefill(fixed: Cells, live: Cells, server: int, tokens: int) -> int:
    """The first prefill, into the batch, with so many of its tokens."""
    slot = fixed[server + PARTIAL]
    if slot == NOBODY:
        slot = fixed[server + PREFILLS]
        fixed[server + PREFILLS] = live[slot + NEXT]
        fixed[server + PREFILLS + LENGTH] -= 1
    if not live[slot + KV_TOKENS]:
        fixed[server + NUM_RESIDENT] += 1
        live[slot + CLAIMED_BYTES] = live[slot + RESERVE_BYTES]
        fixed[server + KV_RESERVED] += live[slot + RESERVE_BYTES]
    live[slot + SHARE_TOKENS] = tokens
    fixed[server + PARTIAL] = NOBODY if tokens == live[slot + LEFT_TOKENS] else slot
    return slot


@compiled
def _add(fixed: Cells, live: Cells, server: int, slot: int) -> int:
    """A share of the batch being formed, to the sums of its split: the work of decoding the message it begins with."""
    group, new, past = live[slot + GROUP_ROW], live[slot + SHARE_TOKENS], live[slot + KV_TOKENS]
    split = fixed[group + ITS_SPLIT]
    fixed[split + TOKENS] += new
    fixed[split + POSITIONS] += past + 2 * new
    fixed[split + PAIRS] += new * past + new * (new + 1) // 2
    is_begun = live[slot + LEFT_TOKENS] < live[slot + NEW_TOKENS]
    live[slot + LEFT_TOKENS] -= new
    live[slot + KV_TOKENS] += new
    fixed[server + KV_TOTAL] += new
    if is_begun or not fixed[group + SPLIT_LAYER]:
        return NOBODY
    moved_bytes = live[slot + NEW_TOKENS] * fixed[group + HIDDEN_BYTES] + live[slot + MESSAGE_BYTES]
    return moved_bytes * fixed[group + DECODE_PERCENT]


@compiled
def _fill(fixed: Cells, live: Cells, server: int) -> tuple[int, int, int]:
    """The law of testbed.schedulers.batching, for fifo: shares taken, those that end a pass, work of decoding.

    That work is NOBODY where no message comes with the batch.
    """
    chunk, max_batch = fixed[server + CHUNK], fixed[server + MAX_BATCH]
    prefill_left, step_left, is_shared = (
        fixed[server + MAX_PREFILL],
        max_batch,
        fixed[server + PRIORITY] == PREFILL_FIRST,
    )
    if chunk:
        set_aside = ZERO if is_shared else min(fixed[server + STEPS + LENGTH], max_batch)
        prefill_left, step_left = min(prefill_left, chunk - set_aside), chunk
    count, num_last, num_prefills, work, is_held = ZERO, ZERO, ZERO, NOBODY, False
    while count < max_batch:
        step = fixed[server + STEPS] if step_left > 0 else NOBODY
        prefill = fixed[server + PARTIAL] if fixed[server + PARTIAL] != NOBODY else fixed[server + PREFILLS]
        tokens = ZERO
        if prefill != NOBODY and not is_held:
            tokens = live[prefill + LEFT_TOKENS]
            if chunk:
                tokens = max(ZERO, min(tokens, prefill_left))
            elif num_prefills and tokens > prefill_left:
                tokens = ZERO
        is_step = step != NOBODY and (tokens == 0 or _is_first(fixed, live, server, step, prefill))
        if not is_step and (tokens == 0 or not _may_go(fixed, live, server, prefill)):
            is_held, is_step = True, step != NOBODY
            if not is_step:
                break
        if is_step:
            slot = _take_step(fixed, live, server)
            step_left -= 1
        else:
            slot = _take_prefill(fixed, live, server, tokens)
            prefill_left -= tokens
            num_prefills += 1
            step_left -= tokens if chunk and is_shared else ZERO
            is_held = fixed[server + PARTIAL] != NOBODY
        fixed[server + BATCH + count] = slot
        count += 1
        decoding = _add(fixed, live, server, slot)
        num_last += live[slot + LEFT_TOKENS] == 0
        if decoding != NOBODY:
            work = max(work, ZERO) + decoding
    return count, num_last, work


@compiled
def form(fixed: Cells, live: Cells, agenda: Cells, server: int, now_ns: int) -> None:
    """Begin an iteration over who is ready; without anybody, look again when the next one comes."""
    fixed[server + PLANNED_NS] = NEVER
    _gather(fixed, live, server, now_ns)
    first_split = fixed[AT_SPLITS]
    for split in range(first_split, first_split + fixed[NUM_SPLITS] * SPLIT_WIDTH, SPLIT_WIDTH):
        fixed[split + TOKENS] = fixed[split + POSITIONS] = fixed[split + PAIRS] = 0
    had_partial = fixed[server + PARTIAL] != NOBODY
    count, num_last, work = _fill(fixed, live, server)
    if count == 0:
        if fixed[server + COMING] != NOBODY:
            plan(fixed, agenda, server, live[fixed[server + COMING] + READY_NS])
        return
    decode_ns = coding_ns(fixed, server, work) if work != NOBODY else ZERO
    layers_ns = back_ns(fixed, server, num_last)
    fixed[server + IS_BUSY] = 1
    fixed[server + START_NS], fixed[server + NUM_BATCH] = now_ns, count
    fixed[server + DECODE_NS], fixed[server + BACK_NS] = decode_ns, layers_ns
    left_out = had_partial and fixed[server + PARTIAL] != NOBODY and num_last == count  # its own share never ends it
    fixed[server + NUM_WAITING] = fixed[server + STEPS + LENGTH] + fixed[server + PREFILLS + LENGTH] + left_out
    fixed[server + PEAK_KV] = max(fixed[server + PEAK_KV], fixed[server + KV_RESERVED])
    fixed[server + BUSY_NS] += decode_ns + layers_ns
    key = ITERATION_END_KEY | fixed[server + SERVER_NUMBER]
    push_event(agenda, now_ns + decode_ns + layers_ns, key, server)
