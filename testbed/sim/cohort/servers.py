"""A server's iterations: what testbed.sim.server and testbed.schedulers.fifo do, over arrays."""

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
from testbed.sim.cohort.compiling import compiled
from testbed.sim.cohort.costs import back_ns, coding_ns, front_ns
from testbed.sim.cohort.heaps import RANK_SHIFT, meld, push_event, without_root
from testbed.sim.cohort.links import DOWN, UP, carry
from testbed.sim.cohort.state import (
    ARRIVAL_FIRST,
    AT_ITERATIONS,
    AT_LAWS,
    AT_SPLITS,
    BACK_NS,
    BATCH,
    BUSY_NS,
    CHILD,
    CHUNK,
    CLAIMED_BYTES,
    COMING,
    COMPUTING_NS,
    DECODE_FIRST,
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
    NUM_ITERATIONS,
    NUM_PASSES,
    NUM_RESIDENT,
    NUM_SPLITS,
    NUM_WAITING,
    ONE,
    PAIRS,
    PARTIAL,
    PEAK_KV,
    PLANNED_NS,
    POSITIONS,
    PREFILL_FIRST,
    PREFILLS,
    PRIORITY,
    READY_NS,
    REASON_DOWN,
    REASON_LENGTH,
    REASON_UP,
    RECORDS_ITERATIONS,
    RESERVE_BYTES,
    SERVER_NUMBER,
    SERVER_ROW,
    SHARE_TOKENS,
    SIBLING,
    SPLIT_LAYER,
    SPLIT_WIDTH,
    START_NS,
    STEPS,
    TOKENS,
    ZERO,
    Cells,
    typed,
)

TOKEN_BYTES = typed(4)  # testbed.actors.calls
# Ranks within an instant: a request's end is one of SimPy's normal events, the others are testbed.sim.kernel's.
LEAVE, ARRIVAL, ADMISSION, ITERATION_END, FORMATION = range(1, 6)
LEAVE_KEY, ARRIVAL_KEY, ADMISSION_KEY, ITERATION_END_KEY, FORMATION_KEY = (
    typed(rank << RANK_SHIFT) for rank in range(1, 6)
)
_STEPS, _PREFILLS = typed(STEPS), typed(PREFILLS)
_FRONT, _ENCODE = HOPS.index(Hop.FRONT), HOPS.index(Hop.ENCODE)
_SERVER_WAIT, _DECODE, _BACK = HOPS.index(Hop.SERVER_WAIT), HOPS.index(Hop.DECODE), HOPS.index(Hop.BACK)


@compiled
def leave(live: Cells, agenda: Cells, slot: int, time_ns: int, reason: int) -> None:
    """The request ends then."""
    push_event(agenda, time_ns, LEAVE_KEY | live[slot + REQUEST], slot * 8 + reason)


@compiled
def plan(fixed: Cells, agenda: Cells, server: int, time_ns: int) -> None:
    """An idle server will look for a batch then, if not before."""
    if not fixed[server + IS_BUSY] and time_ns < fixed[server + PLANNED_NS]:
        fixed[server + PLANNED_NS] = time_ns
        push_event(agenda, time_ns, FORMATION_KEY | fixed[server + SERVER_NUMBER], server)


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
