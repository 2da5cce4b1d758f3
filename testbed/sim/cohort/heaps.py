"""Two heaps: of all events, by (time, key), and of the sequences on their way to a server, by (ready time, request).

The second is a pairing heap in the slots' own cells, so that it needs no room of its own however many wait.
"""

from __future__ import annotations

from testbed.core.request_row import REQUEST
from testbed.sim.cohort.compiling import compiled
from testbed.sim.cohort.state import (
    CHILD,
    NOBODY,
    NUM_EVENTS,
    READY_NS,
    SIBLING,
    Arrays,
    I64Array,
)

RANK_SHIFT = 40  # of an event's key: its place lies below


@compiled
def push_event(arrays: Arrays, time_ns: int, key: int, data: int) -> None:
    events = arrays.events
    place = arrays.control[NUM_EVENTS]
    arrays.control[NUM_EVENTS] += 1
    while place > 0:
        above = (place - 1) >> 1
        if events[above, 0] < time_ns or (events[above, 0] == time_ns and events[above, 1] <= key):
            break
        events[place, 0], events[place, 1], events[place, 2] = events[above, 0], events[above, 1], events[above, 2]
        place = above
    events[place, 0], events[place, 1], events[place, 2] = time_ns, key, data


@compiled
def pop_event(arrays: Arrays) -> None:
    """Take the first event off."""
    events = arrays.events
    arrays.control[NUM_EVENTS] -= 1
    count = arrays.control[NUM_EVENTS]
    time_ns, key, place = events[count, 0], events[count, 1], 0
    while True:
        below = 2 * place + 1
        if below >= count:
            break
        right = below + 1
        if right < count and (
            events[right, 0] < events[below, 0]
            or (events[right, 0] == events[below, 0] and events[right, 1] < events[below, 1])
        ):
            below = right
        if events[below, 0] > time_ns or (events[below, 0] == time_ns and events[below, 1] >= key):
            break
        events[place, 0], events[place, 1], events[place, 2] = events[below, 0], events[below, 1], events[below, 2]
        place = below
    events[place, 0], events[place, 1], events[place, 2] = time_ns, key, events[count, 2]


@compiled
def meld(slots: I64Array, one: int, other: int) -> int:
    """The root of two heaps together, each whole and without a sibling."""
    if one == NOBODY:
        return other
    if other == NOBODY:
        return one
    first, then = slots[one, READY_NS], slots[other, READY_NS]
    if then < first or (then == first and slots[other, REQUEST] < slots[one, REQUEST]):
        one, other = other, one
    slots[other, SIBLING] = slots[one, CHILD]
    slots[one, CHILD] = other
    return one


@compiled
def without_root(slots: I64Array, root: int) -> int:
    """The heap that remains: its children, melded in pairs and then one after the other."""
    child = slots[root, CHILD]
    slots[root, CHILD] = NOBODY
    pairs = NOBODY
    while child != NOBODY:
        following = slots[child, SIBLING]
        slots[child, SIBLING] = NOBODY
        if following == NOBODY:
            pair, child = child, NOBODY
        else:
            rest = slots[following, SIBLING]
            slots[following, SIBLING] = NOBODY
            pair, child = meld(slots, child, following), rest
        slots[pair, SIBLING] = pairs
        pairs = pair
    heap = NOBODY
    while pairs != NOBODY:
        following = slots[pairs, SIBLING]
        slots[pairs, SIBLING] = NOBODY
        heap = meld(slots, heap, pairs)
        pairs = following
    return heap
