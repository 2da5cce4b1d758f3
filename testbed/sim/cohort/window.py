"""The engine's loop: what happens next, in the order that testbed.sim.kernel writes down.

At one instant: requests arrive and end, then those whose turn it is are admitted in the order of their numbers, then
iterations end and batches form, both in the order of the servers. Who asks for admission because another has passed at
this instant comes after all who had asked before.
"""

from __future__ import annotations

import numpy as np

from testbed.core.events import HOPS, Hop, Outcome
from testbed.core.request_row import (
    ADMITTED_NS,
    ARRIVAL_NS,
    CODEC,
    CURRENT_CODEC,
    DEVICE,
    END_NS,
    FIRST_TOKEN_NS,
    LAST_TOKEN_NS,
    MAX_OUTPUT_TOKENS,
    OUTCOME,
    OUTCOMES,
    OUTPUT_TOKENS,
    PROMPT_TOKENS,
    REASON,
    REQUEST,
    SERVER,
    SPLIT,
    UNKNOWN,
    WIDTH,
)
from testbed.sim.cohort.compiling import compiled, entry
from testbed.sim.cohort.costs import front_ns
from testbed.sim.cohort.heaps import RANK_SHIFT, pop_event, push_event
from testbed.sim.cohort.servers import (
    ADMISSION,
    ADMISSION_KEY,
    FORMATION,
    ITERATION_END,
    LEAVE,
    end,
    form,
    leave,
    plan,
    release,
    send_up,
)
from testbed.sim.cohort.state import (
    BEHIND,
    CLAIMED_BYTES,
    CODEC_NUMBER,
    COMPUTING_NS,
    DEMAND_TABLE,
    DONE,
    FREE_BYTES,
    FULL,
    GROUP,
    IS_BUSY,
    IS_TAKEN,
    ITS_DEVICE,
    ITS_GROUP,
    ITS_OUTPUT,
    ITS_PROMPT,
    KV_CAPACITY,
    NEVER,
    NEXT_ARRIVAL,
    NOBODY,
    NOW_NS,
    NUM_ENDED,
    NUM_EVENTS,
    NUM_FREE,
    NUM_ITERATIONS,
    NUM_LAYERS,
    NUM_ROWS,
    ONE,
    OUTSTANDING,
    PEAK_MEMORY,
    PLANNED_NS,
    REACHED,
    REASON_DEVICE,
    REASON_LENGTH,
    REASON_SERVER,
    RESERVE_BYTES,
    RESERVE_TABLE,
    SLOT_WIDTH,
    SPLIT_LAYER,
    TIGHT,
    WAITING_HEAD,
    WAITING_TAIL,
    ZERO,
    Arrays,
)

_PLACE_MASK = (1 << RANK_SHIFT) - 1
_DEVICE_WAIT, _FRONT = HOPS.index(Hop.DEVICE_WAIT), HOPS.index(Hop.FRONT)
_COMPLETED, _OOM = OUTCOMES.index(Outcome.COMPLETED), OUTCOMES.index(Outcome.OOM)
_LINK_TIMEOUT, _INCOMPLETE = OUTCOMES.index(Outcome.LINK_TIMEOUT), OUTCOMES.index(Outcome.INCOMPLETE)


@entry
def advance(arrays: Arrays, limit_ns: int, num_events: int) -> int:
    """Everything before `limit_ns`, but at most so many events, and no more than there is room for: why it stopped."""
    control = arrays.control
    while num_events > 0:
        num_events -= 1
        if not _has_room(arrays):
            return TIGHT
        if control[NUM_ROWS] == len(arrays.rows) or control[NUM_ITERATIONS] == len(arrays.iterations):
            return FULL
        arrival = control[NEXT_ARRIVAL]
        arrival_ns = arrays.arrival_ns[arrival] if arrival < len(arrays.arrival_ns) else NEVER
        event_ns = arrays.events[0, 0] if control[NUM_EVENTS] else NEVER
        if min(arrival_ns, event_ns) >= limit_ns:
            return DONE if min(arrival_ns, event_ns) == NEVER else REACHED
        if arrival_ns <= event_ns:
            control[NOW_NS] = arrival_ns
            control[NEXT_ARRIVAL] += 1
            _arrive(arrays, arrival, arrival_ns)
        elif arrays.events[0, 1] >> RANK_SHIFT == ADMISSION:
            if not _ask(arrays, event_ns):
                return TIGHT
        else:
            _happen(arrays, event_ns, arrays.events[0, 1], arrays.events[0, 2])
    return REACHED


@compiled
def _has_room(arrays: Arrays) -> bool:
    """For whatever the next event may add to the heap: a batch's sequences one each, those admitted two each."""
    control = arrays.control
    most = arrays.batches.shape[1] + 2 * control[NUM_FREE] + 2
    return control[NUM_EVENTS] + most <= len(arrays.events) and control[NUM_FREE] > 0


@compiled
def _happen(arrays: Arrays, now_ns: int, key: int, data: int) -> None:
    rank, place = key >> RANK_SHIFT, key & _PLACE_MASK
    pop_event(arrays)
    servers = arrays.servers
    if rank == FORMATION and (servers[place, IS_BUSY] or servers[place, PLANNED_NS] != now_ns):
        return  # planned before something came earlier
    arrays.control[NOW_NS] = now_ns
    if rank == LEAVE:
        _end(arrays, data >> 3, now_ns, data & 7)
    elif rank == ITERATION_END:
        end(arrays, place, now_ns)
    else:
        form(arrays, place, now_ns)


@compiled
def _arrive(arrays: Arrays, request: int, now_ns: int) -> None:
    """Its device answers one request at a time."""
    counts, device = arrays.counts, arrays.requests[request, ITS_DEVICE]
    if not counts[device, IS_TAKEN]:
        counts[device, IS_TAKEN] = 1
        push_event(arrays, now_ns, ADMISSION_KEY | np.int64(request), ZERO)
        return
    arrays.requests[request, BEHIND] = NOBODY
    if counts[device, WAITING_HEAD] == NOBODY:
        counts[device, WAITING_HEAD] = request
    else:
        arrays.requests[counts[device, WAITING_TAIL], BEHIND] = request
    counts[device, WAITING_TAIL] = request


@compiled
def _ask(arrays: Arrays, now_ns: int) -> bool:
    """Admit all who have asked by now; False, and nothing has happened, where slots are too few for them."""
    control, count = arrays.control, 0
    while (
        control[NUM_EVENTS]
        and arrays.events[0, 0] == now_ns
        and arrays.events[0, 1] >> RANK_SHIFT == ADMISSION
        and count < len(arrays.asking)
    ):
        arrays.asking[count] = arrays.events[0, 1] & _PLACE_MASK
        count += 1
        pop_event(arrays)
    if count > control[NUM_FREE] or count == len(arrays.asking):
        for place in range(count):
            push_event(arrays, now_ns, ADMISSION_KEY | arrays.asking[place], ZERO)
        return False
    control[NOW_NS] = now_ns
    for place in range(count):
        _admit(arrays, arrays.asking[place], now_ns)
    return True


@compiled
def _admit(arrays: Arrays, request: int, now_ns: int) -> None:
    slots, groups = arrays.slots, arrays.groups
    device = np.int64(arrays.requests[request, ITS_DEVICE])
    group = np.int64(arrays.counts[device, ITS_GROUP])
    slot = _new_slot(arrays, request, device, now_ns)
    tokens = slots[slot, PROMPT_TOKENS] + slots[slot, MAX_OUTPUT_TOKENS]
    demand_bytes = arrays.tables[DEMAND_TABLE, group, tokens]
    if demand_bytes > groups[group, FREE_BYTES]:
        leave(arrays, slot, now_ns, REASON_DEVICE)
        return
    reserve_bytes = arrays.tables[RESERVE_TABLE, group, tokens]
    is_alone = groups[group, SPLIT_LAYER] == groups[group, NUM_LAYERS]
    server = NOBODY if is_alone else _least_loaded(arrays, reserve_bytes)
    if server == NOBODY and not is_alone:
        leave(arrays, slot, now_ns, REASON_SERVER)
        return
    arrays.sums[device, PEAK_MEMORY] = max(arrays.sums[device, PEAK_MEMORY], demand_bytes)
    slots[slot, ADMITTED_NS], slots[slot, SPLIT] = now_ns, groups[group, SPLIT_LAYER]
    slots[slot, SERVER], slots[slot, RESERVE_BYTES] = server, reserve_bytes
    slots[slot, CODEC] = slots[slot, CURRENT_CODEC] = groups[group, CODEC_NUMBER]
    if is_alone:
        _run_alone(arrays, slot, now_ns)
        return
    arrays.servers[server, OUTSTANDING] += 1
    send_up(arrays, slot, now_ns, slots[slot, PROMPT_TOKENS], ZERO)


@compiled
def _new_slot(arrays: Arrays, request: int, device: int, now_ns: int) -> int:
    control, slots = arrays.control, arrays.slots
    control[NUM_FREE] -= 1
    slot = np.int64(arrays.free_slots[control[NUM_FREE]])
    for cell in range(SLOT_WIDTH):
        slots[slot, cell] = 0
    slots[slot, REQUEST], slots[slot, DEVICE], slots[slot, GROUP] = request, device, arrays.counts[device, ITS_GROUP]
    slots[slot, PROMPT_TOKENS] = arrays.requests[request, ITS_PROMPT]
    slots[slot, MAX_OUTPUT_TOKENS] = arrays.requests[request, ITS_OUTPUT]
    slots[slot, ARRIVAL_NS] = arrays.arrival_ns[request]
    slots[slot, _DEVICE_WAIT] = now_ns - arrays.arrival_ns[request]
    for cell in (ADMITTED_NS, FIRST_TOKEN_NS, LAST_TOKEN_NS, END_NS, SPLIT, SERVER, CODEC, CURRENT_CODEC):
        slots[slot, cell] = UNKNOWN
    slots[slot, OUTCOME] = _INCOMPLETE
    return slot


@compiled
def _least_loaded(arrays: Arrays, reserve_bytes: int) -> int:
    """The server with the fewest requests under way of those that could ever hold this one."""
    servers, best = arrays.servers, NOBODY
    for server in range(len(servers)):
        if reserve_bytes <= servers[server, KV_CAPACITY] and (
            best == NOBODY or servers[server, OUTSTANDING] < servers[best, OUTSTANDING]
        ):
            best = np.int64(server)
    return best


@compiled
def _run_alone(arrays: Arrays, slot: int, now_ns: int) -> None:
    """The device holds the whole model."""
    slots, group = arrays.slots, arrays.slots[slot, GROUP]
    started_ns, prompt_tokens = now_ns, slots[slot, PROMPT_TOKENS]
    for index in range(slots[slot, MAX_OUTPUT_TOKENS]):
        new = ONE if index else prompt_tokens
        past = prompt_tokens + index - 1 if index else ZERO
        now_ns += front_ns(arrays.groups, group, new, past)
        if index == 0:
            slots[slot, FIRST_TOKEN_NS] = now_ns
    slots[slot, OUTPUT_TOKENS], slots[slot, LAST_TOKEN_NS] = slots[slot, MAX_OUTPUT_TOKENS], now_ns
    slots[slot, _FRONT] += now_ns - started_ns
    arrays.sums[slots[slot, DEVICE], COMPUTING_NS] += now_ns - started_ns
    leave(arrays, slot, now_ns, REASON_LENGTH)


@compiled
def _end(arrays: Arrays, slot: int, now_ns: int, reason: int) -> None:
    """A request's end: its server and its device are rid of it, its row is kept."""
    control, slots = arrays.control, arrays.slots
    device, server = slots[slot, DEVICE], slots[slot, SERVER]
    slots[slot, END_NS], slots[slot, REASON] = now_ns, reason
    if reason == REASON_LENGTH:
        slots[slot, OUTCOME] = _COMPLETED
    elif reason in (REASON_DEVICE, REASON_SERVER):
        slots[slot, OUTCOME] = _OOM
    else:
        slots[slot, OUTCOME] = _LINK_TIMEOUT
    if server != UNKNOWN:
        arrays.servers[server, OUTSTANDING] -= 1
        if slots[slot, CLAIMED_BYTES]:
            release(arrays, slot)
            plan(arrays, server, now_ns)
    for cell in range(WIDTH):
        arrays.rows[control[NUM_ROWS], cell] = slots[slot, cell]
    control[NUM_ROWS] += 1
    control[NUM_ENDED] += 1
    arrays.free_slots[control[NUM_FREE]] = slot
    control[NUM_FREE] += 1
    counts = arrays.counts
    counts[device, IS_TAKEN] = 0
    waiting = np.int64(counts[device, WAITING_HEAD])
    if waiting != NOBODY:
        counts[device, WAITING_HEAD] = arrays.requests[waiting, BEHIND]
        counts[device, IS_TAKEN] = 1
        push_event(arrays, now_ns, ADMISSION_KEY | waiting, ZERO)
