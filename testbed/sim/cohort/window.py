"""The engine's loop: what happens next, in the order that testbed.sim.kernel writes down.

At one instant: requests end, then others arrive, then those whose turn it is are admitted, both in the order of their
numbers, then iterations end and batches form, both in the order of the servers. Who asks for admission because another
has passed at this instant comes after all who had asked before.
"""

from __future__ import annotations

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
from testbed.sim.cohort.batches import form, plan
from testbed.sim.cohort.compiling import compiled, entry
from testbed.sim.cohort.costs import front_ns
from testbed.sim.cohort.heaps import (
    ADMISSION,
    ADMISSION_KEY,
    ARRIVAL,
    ARRIVAL_KEY,
    FORMATION,
    ITERATION_END,
    LEAVE,
    RANK_SHIFT,
    pop_event,
    push_event,
)
from testbed.sim.cohort.passes import end, leave, release, send_up
from testbed.sim.cohort.state import (
    AGENDA_HEAD,
    AT_DEVICES,
    AT_LAWS,
    AT_REQUESTS,
    AT_ROWS,
    AT_SERVERS,
    BEHIND,
    BROKEN,
    CLAIMED_BYTES,
    CODEC_NUMBER,
    COMPUTING_NS,
    DEVICE_ROW,
    DEVICE_WIDTH,
    DONE,
    EVENT_WIDTH,
    FIRST_FREE,
    FOLLOWER,
    FREE_BYTES,
    FULL,
    GAP_NS,
    GROUP_ROW,
    IS_BROKEN,
    IS_BUSY,
    IS_TAKEN,
    ITS_ARRIVAL_NS,
    ITS_DEVICE,
    ITS_GROUP,
    ITS_OUTPUT,
    ITS_PROMPT,
    KV_CAPACITY,
    MOST_ITERATIONS,
    MOST_ROWS,
    NEVER,
    NEXT,
    NEXT_ROOT,
    NOBODY,
    NOTES,
    NOW_NS,
    NUM_ENDED,
    NUM_EVENTS,
    NUM_FREE,
    NUM_ITERATIONS,
    NUM_LAYERS,
    NUM_ROWS,
    NUM_SERVERS,
    ONE,
    OUTSTANDING,
    PEAK_MEMORY,
    PLANNED_NS,
    REACHED,
    REASON_DEVICE,
    REASON_LENGTH,
    REASON_SERVER,
    REQUEST_WIDTH,
    RESERVE_BYTES,
    SERVER_NUMBER,
    SERVER_ROW,
    SERVER_STRIDE,
    SLOT_WIDTH,
    SPLIT_LAYER,
    TABLE_STRIDE,
    TIGHT,
    WAITING_HEAD,
    WAITING_TAIL,
    ZERO,
    Cells,
)

_PLACE_MASK = (1 << RANK_SHIFT) - 1
_DEVICE_WAIT, _FRONT = HOPS.index(Hop.DEVICE_WAIT), HOPS.index(Hop.FRONT)
_COMPLETED, _OOM = OUTCOMES.index(Outcome.COMPLETED), OUTCOMES.index(Outcome.OOM)
_LINK_TIMEOUT, _INCOMPLETE = OUTCOMES.index(Outcome.LINK_TIMEOUT), OUTCOMES.index(Outcome.INCOMPLETE)


@entry
def advance(fixed: Cells, live: Cells, agenda: Cells, limit_ns: int, num_events: int) -> int:
    """Everything before `limit_ns`, but at most so many events, and no more than there is room for: why it stopped."""
    for _ in range(num_events):
        if fixed[IS_BROKEN]:
            return BROKEN
        if not _has_room(fixed, live, agenda):
            return TIGHT
        if live[NUM_ROWS] == live[MOST_ROWS] or live[NUM_ITERATIONS] == live[MOST_ITERATIONS]:
            return FULL
        root, arrival_ns = fixed[NEXT_ROOT], NEVER
        if root != NOBODY:
            arrival_ns = fixed[root + ITS_ARRIVAL_NS]
        event_ns, key = NEVER, ZERO
        if agenda[NUM_EVENTS]:
            event_ns, key = agenda[AGENDA_HEAD], agenda[AGENDA_HEAD + 1]
        now_ns = min(arrival_ns, event_ns)
        if now_ns >= limit_ns:
            return DONE if now_ns == NEVER else REACHED
        if arrival_ns < event_ns or (arrival_ns == event_ns and (ARRIVAL_KEY | _number(fixed, root)) < key):
            fixed[NOW_NS] = arrival_ns
            fixed[NEXT_ROOT] = _root_from(fixed, root + REQUEST_WIDTH)
            _arrive(fixed, agenda, root, arrival_ns)
        elif key >> RANK_SHIFT == ADMISSION:
            if not _ask(fixed, live, agenda, event_ns):
                return TIGHT
        else:
            _happen(fixed, live, agenda, event_ns)
    return REACHED


@compiled
def _number(fixed: Cells, request: int) -> int:
    return (request - fixed[AT_REQUESTS]) // REQUEST_WIDTH


@compiled
def _root_from(fixed: Cells, request: int) -> int:
    """The first request from here on that waits for none, or NOBODY."""
    while request < fixed[AT_DEVICES] and fixed[request + GAP_NS] != NOBODY:
        request += REQUEST_WIDTH
    return request if request < fixed[AT_DEVICES] else NOBODY


@compiled
def _has_room(fixed: Cells, live: Cells, agenda: Cells) -> bool:
    """For whatever the next event may add: of events a batch's sequences one each, those admitted two, of slots one."""
    most = agenda[NUM_EVENTS] + fixed[SERVER_STRIDE] + 2 * live[NUM_FREE]
    return live[NUM_FREE] > fixed[SERVER_STRIDE] and AGENDA_HEAD + most * EVENT_WIDTH <= len(agenda)


@compiled
def _happen(fixed: Cells, live: Cells, agenda: Cells, now_ns: int) -> None:
    rank, datum = agenda[AGENDA_HEAD + 1] >> RANK_SHIFT, agenda[AGENDA_HEAD + 2]
    pop_event(agenda)
    if rank == FORMATION and (fixed[datum + IS_BUSY] or fixed[datum + PLANNED_NS] != now_ns):
        return  # planned before something came earlier
    fixed[NOW_NS] = now_ns
    if rank == LEAVE:
        _end(fixed, live, agenda, datum // 8, now_ns, datum % 8)
    elif rank == ARRIVAL:
        _arrive(fixed, agenda, datum, now_ns)
    elif rank == ITERATION_END:
        end(fixed, live, agenda, datum, now_ns)
    else:
        form(fixed, live, agenda, datum, now_ns)


@compiled
def _arrive(fixed: Cells, agenda: Cells, request: int, now_ns: int) -> None:
    """Its device answers one request at a time."""
    device = fixed[AT_DEVICES] + fixed[request + ITS_DEVICE] * DEVICE_WIDTH
    if not fixed[device + IS_TAKEN]:
        fixed[device + IS_TAKEN] = 1
        push_event(agenda, now_ns, ADMISSION_KEY | _number(fixed, request), request)
        return
    fixed[request + BEHIND] = NOBODY
    if fixed[device + WAITING_HEAD] == NOBODY:
        fixed[device + WAITING_HEAD] = request
    else:
        fixed[fixed[device + WAITING_TAIL] + BEHIND] = request
    fixed[device + WAITING_TAIL] = request


@compiled
def _ask(fixed: Cells, live: Cells, agenda: Cells, now_ns: int) -> bool:
    """Admit all who have asked by now; False, and nothing has happened, where slots are too few for them."""
    first, last, count = NOBODY, NOBODY, 0
    while agenda[NUM_EVENTS] and agenda[AGENDA_HEAD] == now_ns and agenda[AGENDA_HEAD + 1] >> RANK_SHIFT == ADMISSION:
        request = agenda[AGENDA_HEAD + 2]
        pop_event(agenda)
        fixed[request + BEHIND] = NOBODY
        if last == NOBODY:
            first = request
        else:
            fixed[last + BEHIND] = request
        last = request
        count += 1
    is_room = count <= live[NUM_FREE]
    if is_room:
        fixed[NOW_NS] = now_ns
    while first != NOBODY:
        request, first = first, fixed[first + BEHIND]
        if is_room:
            _admit(fixed, live, agenda, request, now_ns)
        else:
            push_event(agenda, now_ns, ADMISSION_KEY | _number(fixed, request), request)
    return is_room


@compiled
def _admit(fixed: Cells, live: Cells, agenda: Cells, request: int, now_ns: int) -> None:
    device = fixed[AT_DEVICES] + fixed[request + ITS_DEVICE] * DEVICE_WIDTH
    group = fixed[device + ITS_GROUP]
    slot = _new_slot(fixed, live, request, device, now_ns)
    tokens = live[slot + PROMPT_TOKENS] + live[slot + MAX_OUTPUT_TOKENS]
    demand_bytes = fixed[fixed[group + AT_LAWS] + fixed[TABLE_STRIDE] + tokens]
    if demand_bytes > fixed[group + FREE_BYTES]:
        leave(live, agenda, slot, now_ns, REASON_DEVICE)
        return
    reserve_bytes = fixed[fixed[group + AT_LAWS] + 2 * fixed[TABLE_STRIDE] + tokens]
    is_alone = fixed[group + SPLIT_LAYER] == fixed[NUM_LAYERS]
    server = NOBODY if is_alone else _least_loaded(fixed, reserve_bytes)
    if server == NOBODY and not is_alone:
        leave(live, agenda, slot, now_ns, REASON_SERVER)
        return
    fixed[device + PEAK_MEMORY] = max(fixed[device + PEAK_MEMORY], demand_bytes)
    live[slot + ADMITTED_NS], live[slot + SPLIT] = now_ns, fixed[group + SPLIT_LAYER]
    live[slot + CODEC] = live[slot + CURRENT_CODEC] = fixed[group + CODEC_NUMBER]
    if is_alone:
        _run_alone(fixed, live, agenda, slot, now_ns)
        return
    live[slot + SERVER], live[slot + SERVER_ROW] = fixed[server + SERVER_NUMBER], server
    live[slot + RESERVE_BYTES] = reserve_bytes
    fixed[server + OUTSTANDING] += 1
    send_up(fixed, live, agenda, slot, now_ns, live[slot + PROMPT_TOKENS], ZERO)


@compiled
def _new_slot(fixed: Cells, live: Cells, request: int, device: int, now_ns: int) -> int:
    slot = live[FIRST_FREE]
    live[FIRST_FREE] = live[slot + NEXT]
    live[NUM_FREE] -= 1
    for cell in range(slot, slot + SLOT_WIDTH):
        live[cell] = 0
    live[slot + REQUEST] = _number(fixed, request)
    live[slot + DEVICE], live[slot + DEVICE_ROW] = fixed[request + ITS_DEVICE], device
    live[slot + GROUP_ROW], live[slot + SERVER_ROW] = fixed[device + ITS_GROUP], NOBODY
    live[slot + PROMPT_TOKENS] = fixed[request + ITS_PROMPT]
    live[slot + MAX_OUTPUT_TOKENS] = fixed[request + ITS_OUTPUT]
    live[slot + ARRIVAL_NS] = fixed[request + ITS_ARRIVAL_NS]
    live[slot + _DEVICE_WAIT] = now_ns - fixed[request + ITS_ARRIVAL_NS]
    for cell in (ADMITTED_NS, FIRST_TOKEN_NS, LAST_TOKEN_NS, END_NS, SPLIT, SERVER, CODEC, CURRENT_CODEC):
        live[slot + cell] = UNKNOWN
    live[slot + OUTCOME], live[slot + NOTES] = _INCOMPLETE, NOBODY
    return slot


@compiled
def _least_loaded(fixed: Cells, reserve_bytes: int) -> int:
    """The server with the fewest requests under way of those that could ever hold this one."""
    best, first, stride = NOBODY, fixed[AT_SERVERS], fixed[SERVER_STRIDE]
    for server in range(first, first + fixed[NUM_SERVERS] * stride, stride):
        if reserve_bytes <= fixed[server + KV_CAPACITY] and (
            best == NOBODY or fixed[server + OUTSTANDING] < fixed[best + OUTSTANDING]
        ):
            best = server
    return best


@compiled
def _run_alone(fixed: Cells, live: Cells, agenda: Cells, slot: int, now_ns: int) -> None:
    """The device holds the whole model."""
    group, device, started_ns = live[slot + GROUP_ROW], live[slot + DEVICE_ROW], now_ns
    prompt_tokens = live[slot + PROMPT_TOKENS]
    now_ns += front_ns(fixed, group, prompt_tokens, ZERO)
    live[slot + FIRST_TOKEN_NS] = now_ns
    for past in range(prompt_tokens, prompt_tokens + live[slot + MAX_OUTPUT_TOKENS] - 1):
        now_ns += front_ns(fixed, group, ONE, past)
    live[slot + OUTPUT_TOKENS], live[slot + LAST_TOKEN_NS] = live[slot + MAX_OUTPUT_TOKENS], now_ns
    live[slot + _FRONT] += now_ns - started_ns
    fixed[device + COMPUTING_NS] += now_ns - started_ns
    leave(live, agenda, slot, now_ns, REASON_LENGTH)


@compiled
def _end(fixed: Cells, live: Cells, agenda: Cells, slot: int, now_ns: int, reason: int) -> None:
    """A request's end: its server and its device are rid of it, its row is kept."""
    device, server = live[slot + DEVICE_ROW], live[slot + SERVER_ROW]
    live[slot + END_NS], live[slot + REASON] = now_ns, reason
    if reason == REASON_LENGTH:
        live[slot + OUTCOME] = _COMPLETED
    elif reason in (REASON_DEVICE, REASON_SERVER):
        live[slot + OUTCOME] = _OOM
    else:
        live[slot + OUTCOME] = _LINK_TIMEOUT
    if server != NOBODY:
        fixed[server + OUTSTANDING] -= 1
        if live[slot + CLAIMED_BYTES]:
            release(fixed, live, slot)
            plan(fixed, agenda, server, now_ns)
    row = live[AT_ROWS] + live[NUM_ROWS] * WIDTH
    for cell in range(WIDTH):
        live[row + cell] = live[slot + cell]
    live[NUM_ROWS] += 1
    fixed[NUM_ENDED] += 1
    live[slot + NEXT], live[FIRST_FREE] = live[FIRST_FREE], slot
    live[NUM_FREE] += 1
    request = fixed[AT_REQUESTS] + live[slot + REQUEST] * REQUEST_WIDTH
    follower = fixed[request + FOLLOWER]
    if follower != NOBODY:
        fixed[follower + ITS_ARRIVAL_NS] = now_ns + fixed[follower + GAP_NS]
        push_event(agenda, now_ns + fixed[follower + GAP_NS], ARRIVAL_KEY | _number(fixed, follower), follower)
    fixed[device + IS_TAKEN] = 0
    waiting = fixed[device + WAITING_HEAD]
    if waiting != NOBODY:
        fixed[device + WAITING_HEAD] = fixed[waiting + BEHIND]
        fixed[device + IS_TAKEN] = 1
        push_event(agenda, now_ns, ADMISSION_KEY | _number(fixed, waiting), waiting)
