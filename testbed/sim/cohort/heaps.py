"""Two heaps: of all events, by (time, key), and of the sequences on their way to a server, by (ready time, request).

The second is a pairing heap in the slots' own cells, so that it needs no room of its own however many wait.
"""

from __future__ import annotations

from testbed.core.request_row import REQUEST
from testbed.sim.cohort.compiling import compiled
from testbed.sim.cohort.state import (
    AGENDA_HEAD,
    CHILD,
    EVENT_WIDTH,
    NOBODY,
    NUM_EVENTS,
    READY_NS,
    SIBLING,
    Cells,
    typed,
)

RANK_SHIFT = 40  # of an event's key: its place lies below
# Ranks within an instant: a request's end is one of SimPy's normal events, the others are testbed.sim.kernel's.
LEAVE, ARRIVAL, ADMISSION, ITERATION_END, FORMATION = range(1, 6)
LEAVE_KEY, ARRIVAL_KEY, ADMISSION_KEY, ITERATION_END_KEY, FORMATION_KEY = (
    typed(rank << RANK_SHIFT) for rank in range(1, 6)
)


@compiled
def push_event(agenda: Cells, time_ns: int, key: int, datum: int) -> None:
    place = agenda[NUM_EVENTS]
    agenda[NUM_EVENTS] += 1
    while place > 0:
        above = (place - 1) >> 1
        at, up = AGENDA_HEAD + place * EVENT_WIDTH, AGENDA_HEAD + above * EVENT_WIDTH
        if agenda[up] < time_ns or (agenda[up] == time_ns and agenda[up + 1] <= key):
            break
        agenda[at], agenda[at + 1], agenda[at + 2] = agenda[up], agenda[up + 1], agenda[up + 2]
        place = above
    at = AGENDA_HEAD + place * EVENT_WIDTH
    agenda[at], agenda[at + 1], agenda[at + 2] = time_ns, key, datum


@compiled
def pop_event(agenda: Cells) -> None:
    """Take the first event off."""
    agenda[NUM_EVENTS] -= 1
    count = agenda[NUM_EVENTS]
    last = AGENDA_HEAD + count * EVENT_WIDTH
    time_ns, key, place = agenda[last], agenda[last + 1], 0
    while True:
        below = 2 * place + 1
        if below >= count:
            break
        down = AGENDA_HEAD + below * EVENT_WIDTH
        right = down + EVENT_WIDTH
        if below + 1 < count and (
            agenda[right] < agenda[down] or (agenda[right] == agenda[down] and agenda[right + 1] < agenda[down + 1])
        ):
            below, down = below + 1, right
        if agenda[down] > time_ns or (agenda[down] == time_ns and agenda[down + 1] >= key):
            break
        at = AGENDA_HEAD + place * EVENT_WIDTH
        agenda[at], agenda[at + 1], agenda[at + 2] = agenda[down], agenda[down + 1], agenda[down + 2]
        place = below
    at = AGENDA_HEAD + place * EVENT_WIDTH
    agenda[at], agenda[at + 1], agenda[at + 2] = time_ns, key, agenda[last + 2]


@compiled
def meld(live: Cells, one: int, other: int) -> int:
    """The root of two heaps together, each whole and without a sibling."""
    if one == NOBODY:
        return other
    if other == NOBODY:
        return one
    first, then = live[one + READY_NS], live[other + READY_NS]
    if then < first or (then == first and live[other + REQUEST] < live[one + REQUEST]):
        one, other = other, one
    live[other + SIBLING] = live[one + CHILD]
    live[one + CHILD] = other
    return one


@compiled
def without_root(live: Cells, root: int) -> int:
    """The heap that remains: its children, melded in pairs and then one after the other."""
    child = live[root + CHILD]
    live[root + CHILD] = NOBODY
    pairs = NOBODY
    while child != NOBODY:
        following = live[child + SIBLING]
        live[child + SIBLING] = NOBODY
        pair, child_after = child, NOBODY
        if following != NOBODY:
            child_after = live[following + SIBLING]
            live[following + SIBLING] = NOBODY
            pair = meld(live, child, following)
        live[pair + SIBLING] = pairs
        pairs, child = pair, child_after
    heap = NOBODY
    while pairs != NOBODY:
        following = live[pairs + SIBLING]
        live[pairs + SIBLING] = NOBODY
        heap = meld(live, heap, pairs)
        pairs = following
    return heap
