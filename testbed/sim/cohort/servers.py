"""A server's iterations: what testbed.sim.server and testbed.schedulers.fifo do, over arrays."""

from __future__ import annotations

import numpy as np

from testbed.core.events import HOPS, Hop
from testbed.core.request_row import (
    DEVICE,
    FIRST_TOKEN_NS,
    LAST_TOKEN_NS,
    MAX_OUTPUT_TOKENS,
    OUTPUT_TOKENS,
    PROMPT_TOKENS,
    REQUEST,
    SERVER,
)
from testbed.sim.cohort.compiling import compiled
from testbed.sim.cohort.costs import back_ns, coding_ns, front_ns
from testbed.sim.cohort.heaps import RANK_SHIFT, meld, push_event, without_root
from testbed.sim.cohort.links import DOWN, UP, carry
from testbed.sim.cohort.state import (
    BACK_NS,
    BUSY_NS,
    CHILD,
    CLAIMED_BYTES,
    COMING,
    COMPUTING_NS,
    DECODE_NS,
    DECODE_PERCENT,
    ENCODE_PERCENT,
    GROUP,
    HIDDEN_BYTES,
    IS_BUSY,
    ITERATIONS,
    KV_CAPACITY,
    KV_RESERVED,
    KV_TOKENS,
    KV_TOTAL,
    MAX_BATCH,
    MAX_PREFILL,
    MESSAGE_BYTES,
    MESSAGE_TABLE,
    NEVER,
    NEW_TOKENS,
    NEXT,
    NOBODY,
    NUM_BATCH,
    NUM_ITERATIONS,
    NUM_LAYERS,
    NUM_PREFILLS,
    NUM_STEPS,
    NUM_STEPS_DONE,
    NUM_WAITING,
    ONE,
    PAIRS,
    PEAK_KV,
    PLANNED_NS,
    POSITIONS,
    PREFILLS_HEAD,
    READY_NS,
    REASON_DOWN,
    REASON_LENGTH,
    REASON_UP,
    RECORDS_ITERATIONS,
    RESERVE_BYTES,
    SIBLING,
    SPLIT_LAYER,
    SPLIT_PLACE,
    START_NS,
    STEPS_HEAD,
    TOKENS,
    ZERO,
    Arrays,
)

TOKEN_BYTES = np.int64(4)  # testbed.actors.calls
LEAVE, ADMISSION, ITERATION_END, FORMATION = range(1, 5)  # ranks: a request's end is one of SimPy's normal events
LEAVE_KEY, ADMISSION_KEY, ITERATION_END_KEY, FORMATION_KEY = (np.int64(rank << RANK_SHIFT) for rank in range(1, 5))
_FRONT, _ENCODE = HOPS.index(Hop.FRONT), HOPS.index(Hop.ENCODE)
_STEPS, _PREFILLS = np.int64(STEPS_HEAD), np.int64(PREFILLS_HEAD)
_SERVER_WAIT, _DECODE, _BACK = HOPS.index(Hop.SERVER_WAIT), HOPS.index(Hop.DECODE), HOPS.index(Hop.BACK)


@compiled
def leave(arrays: Arrays, slot: int, time_ns: int, reason: int) -> None:
    """The request ends then."""
    push_event(arrays, time_ns, LEAVE_KEY | arrays.slots[slot, REQUEST], slot * 8 + reason)


@compiled
def plan(arrays: Arrays, server: int, time_ns: int) -> None:
    """An idle server will look for a batch then, if not before."""
    servers = arrays.servers
    if not servers[server, IS_BUSY] and time_ns < servers[server, PLANNED_NS]:
        servers[server, PLANNED_NS] = time_ns
        push_event(arrays, time_ns, FORMATION_KEY | server, ZERO)


@compiled
def submit(arrays: Arrays, slot: int, ready_ns: int) -> None:
    """The sequence will be ready for its next pass then."""
    slots, server = arrays.slots, arrays.slots[slot, SERVER]
    slots[slot, READY_NS] = ready_ns
    slots[slot, CHILD] = slots[slot, SIBLING] = NOBODY
    arrays.servers[server, COMING] = meld(slots, arrays.servers[server, COMING], slot)
    plan(arrays, server, ready_ns)


@compiled
def send_up(arrays: Arrays, slot: int, now_ns: int, new: int, past: int) -> None:
    """The device's share of a pass, and its message to the server."""
    slots, groups = arrays.slots, arrays.groups
    group, device = slots[slot, GROUP], slots[slot, DEVICE]
    slots[slot, NEW_TOKENS] = new
    if groups[group, SPLIT_LAYER] == 0:
        if past:  # the server goes on by itself
            submit(arrays, slot, now_ns)
            return
        size_bytes = new * TOKEN_BYTES
    else:
        size_bytes = arrays.tables[MESSAGE_TABLE, group, new]
        computing_ns = front_ns(groups, group, new, past)
        work = (new * groups[group, HIDDEN_BYTES] + size_bytes) * groups[group, ENCODE_PERCENT]
        encode_ns = coding_ns(groups, group, work)
        slots[slot, _FRONT] += computing_ns
        slots[slot, _ENCODE] += encode_ns
        arrays.sums[device, COMPUTING_NS] += computing_ns + encode_ns
        now_ns += computing_ns + encode_ns
    slots[slot, MESSAGE_BYTES] = size_bytes
    there_ns = carry(arrays, slot, device, UP, now_ns, size_bytes)
    if there_ns < 0:
        leave(arrays, slot, -there_ns, REASON_UP)
    else:
        submit(arrays, slot, there_ns)


@compiled
def release(arrays: Arrays, slot: int) -> None:
    """No pass of this sequence comes any more: its KV is free."""
    slots, servers, server = arrays.slots, arrays.servers, arrays.slots[slot, SERVER]
    servers[server, KV_TOTAL] -= slots[slot, KV_TOKENS]
    servers[server, KV_RESERVED] -= slots[slot, CLAIMED_BYTES]
    slots[slot, KV_TOKENS] = slots[slot, CLAIMED_BYTES] = 0


@compiled
def _append(arrays: Arrays, server: int, slot: int, head: int) -> None:
    """To the end of one of a server's queues, named by its first column."""
    servers, tail, count = arrays.servers, head + 1, head + 2
    arrays.slots[slot, NEXT] = NOBODY
    if servers[server, head] == NOBODY:
        servers[server, head] = slot
    else:
        arrays.slots[servers[server, tail], NEXT] = slot
    servers[server, tail] = slot
    servers[server, count] += 1


@compiled
def _gather(arrays: Arrays, server: int, now_ns: int) -> None:
    """Who has come by now joins the queues, in the order of (ready time, request)."""
    slots, servers = arrays.slots, arrays.servers
    root = servers[server, COMING]
    while root != NOBODY and slots[root, READY_NS] <= now_ns:
        rest = without_root(slots, root)
        if slots[root, KV_TOKENS]:
            _append(arrays, server, root, _STEPS)
        else:
            _append(arrays, server, root, _PREFILLS)
        root = rest
    servers[server, COMING] = root


@compiled
def _is_before(arrays: Arrays, one: int, other: int) -> bool:
    slots = arrays.slots
    if slots[one, READY_NS] != slots[other, READY_NS]:
        return slots[one, READY_NS] < slots[other, READY_NS]
    return slots[one, REQUEST] < slots[other, REQUEST]


@compiled
def _next(arrays: Arrays, server: int, prefill_tokens: int) -> int:
    """Who enters the batch next; NOBODY where none can."""
    slots, servers = arrays.slots, arrays.servers
    step, prefill = servers[server, STEPS_HEAD], servers[server, PREFILLS_HEAD]
    if prefill != NOBODY:
        is_within = prefill_tokens == 0 or prefill_tokens + slots[prefill, NEW_TOKENS] <= servers[server, MAX_PREFILL]
        kv_bytes = servers[server, KV_RESERVED] + slots[prefill, RESERVE_BYTES]
        if not is_within or kv_bytes > servers[server, KV_CAPACITY]:
            prefill = NOBODY
    if step == NOBODY or (prefill != NOBODY and not _is_before(arrays, step, prefill)):
        return prefill
    return step


@compiled
def _take(arrays: Arrays, server: int, slot: int) -> int:
    """Into the batch, from the head of its queue: the tokens of its prompt."""
    slots, servers = arrays.slots, arrays.servers
    if slots[slot, KV_TOKENS]:
        servers[server, STEPS_HEAD] = slots[slot, NEXT]
        servers[server, NUM_STEPS] -= 1
        return 0
    servers[server, PREFILLS_HEAD] = slots[slot, NEXT]
    servers[server, NUM_PREFILLS] -= 1
    slots[slot, CLAIMED_BYTES] = slots[slot, RESERVE_BYTES]
    servers[server, KV_RESERVED] += slots[slot, RESERVE_BYTES]
    return slots[slot, NEW_TOKENS]


@compiled
def form(arrays: Arrays, server: int, now_ns: int) -> None:
    """Begin an iteration over who is ready; without anybody, look again when the next one comes."""
    slots, servers, groups = arrays.slots, arrays.servers, arrays.groups
    servers[server, PLANNED_NS] = NEVER
    _gather(arrays, server, now_ns)
    splits = arrays.splits
    splits[:, TOKENS:] = 0
    count = prefill_tokens = num_coded = work = ZERO
    while count < servers[server, MAX_BATCH]:
        slot = _next(arrays, server, prefill_tokens)
        if slot == NOBODY:
            break
        prefill_tokens += _take(arrays, server, slot)
        arrays.batches[server, count] = slot
        count += 1
        group, new, past = slots[slot, GROUP], slots[slot, NEW_TOKENS], slots[slot, KV_TOKENS]
        place = groups[group, SPLIT_PLACE]
        splits[place, TOKENS] += new
        splits[place, POSITIONS] += past + 2 * new
        splits[place, PAIRS] += new * past + new * (new + 1) // 2
        if groups[group, SPLIT_LAYER]:
            num_coded += 1
            moved_bytes = new * groups[group, HIDDEN_BYTES] + slots[slot, MESSAGE_BYTES]
            work += moved_bytes * groups[group, DECODE_PERCENT]
    if count == 0:
        if servers[server, COMING] != NOBODY:
            plan(arrays, server, slots[servers[server, COMING], READY_NS])
        return
    decode_ns = coding_ns(servers, server, work) if num_coded else ZERO
    num_layers = groups[slots[arrays.batches[server, 0], GROUP], NUM_LAYERS]
    layers_ns = back_ns(servers, server, splits, num_layers, count)
    servers[server, IS_BUSY] = 1
    servers[server, START_NS], servers[server, NUM_BATCH] = now_ns, count
    servers[server, DECODE_NS], servers[server, BACK_NS] = decode_ns, layers_ns
    servers[server, NUM_WAITING] = servers[server, NUM_STEPS] + servers[server, NUM_PREFILLS]
    servers[server, PEAK_KV] = max(servers[server, PEAK_KV], servers[server, KV_RESERVED])
    servers[server, BUSY_NS] += decode_ns + layers_ns
    push_event(arrays, now_ns + decode_ns + layers_ns, ITERATION_END_KEY | server, ZERO)


@compiled
def end(arrays: Arrays, server: int, now_ns: int) -> None:
    """The iteration under way ends: its sequences go on, each on its own."""
    servers = arrays.servers
    _account(arrays, server, now_ns)
    for place in range(servers[server, NUM_BATCH]):
        _go_on(arrays, server, np.int64(arrays.batches[server, place]), now_ns)
    servers[server, IS_BUSY] = 0
    plan(arrays, server, now_ns)


@compiled
def _account(arrays: Arrays, server: int, now_ns: int) -> None:
    slots, servers, control = arrays.slots, arrays.servers, arrays.control
    count, prefill_tokens, all_tokens = servers[server, NUM_BATCH], 0, 0
    for place in range(count):
        slot = arrays.batches[server, place]
        if slots[slot, KV_TOKENS] == 0:
            prefill_tokens += slots[slot, NEW_TOKENS]
        all_tokens += slots[slot, NEW_TOKENS]
        slots[slot, KV_TOKENS] += slots[slot, NEW_TOKENS]
    servers[server, KV_TOTAL] += all_tokens
    if control[RECORDS_ITERATIONS]:
        row, rows = control[NUM_ITERATIONS], arrays.iterations
        control[NUM_ITERATIONS] += 1
        rows[row, 0], rows[row, 1] = server, servers[server, ITERATIONS]
        rows[row, 2], rows[row, 3] = servers[server, START_NS], now_ns
        rows[row, 4], rows[row, 5], rows[row, 6] = count, prefill_tokens, all_tokens - prefill_tokens
        rows[row, 7], rows[row, 8] = servers[server, KV_TOTAL], servers[server, NUM_WAITING]
    servers[server, ITERATIONS] += 1
    control[NUM_STEPS_DONE] += count


@compiled
def _go_on(arrays: Arrays, server: int, slot: int, now_ns: int) -> None:
    """A sequence has its next token, which goes down; then comes its next pass, or its end."""
    slots, servers = arrays.slots, arrays.servers
    decode_ns, layers_ns = servers[server, DECODE_NS], servers[server, BACK_NS]
    slots[slot, _SERVER_WAIT] += now_ns - slots[slot, READY_NS] - decode_ns - layers_ns
    slots[slot, _DECODE] += decode_ns
    slots[slot, _BACK] += layers_ns
    num_tokens = slots[slot, OUTPUT_TOKENS] + 1
    is_last = num_tokens == slots[slot, MAX_OUTPUT_TOKENS]
    if is_last:
        release(arrays, slot)
    there_ns = carry(arrays, slot, slots[slot, DEVICE], DOWN, now_ns, TOKEN_BYTES)
    if there_ns < 0:
        leave(arrays, slot, -there_ns, REASON_DOWN)
        return
    slots[slot, OUTPUT_TOKENS] = num_tokens
    slots[slot, LAST_TOKEN_NS] = there_ns
    if num_tokens == 1:
        slots[slot, FIRST_TOKEN_NS] = there_ns
    if is_last:
        leave(arrays, slot, there_ns, REASON_LENGTH)
    else:
        send_up(arrays, slot, there_ns, ONE, slots[slot, PROMPT_TOKENS] + num_tokens - 1)
