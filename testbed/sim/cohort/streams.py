"""Tokens that a server sends down while it goes on (testbed.sim.streaming): many messages of one packet under way.

Only the device's own request uses its link, so what is sent, and repeated, stands in one order in time: before a token
is handed over at some instant, every repeat that is due by then is. Repeats wait in *notes*, free slots borrowed for
that. The parts of a request's time that lie on the link are those of its last message to arrive, as far as they come
after the server's last iteration.
"""

from __future__ import annotations

from testbed.core.events import HOPS, Hop
from testbed.core.request_row import FIRST_TOKEN_NS, LAST_TOKEN_NS, PAYLOAD_DOWN, REQUEST, RETRANSMISSIONS, WIRE_DOWN
from testbed.network_models.losses.bernoulli import ATTEMPT_SHIFT
from testbed.sim.cohort.arithmetic import ceil_ns, draw_u32, draws_key, quantile
from testbed.sim.cohort.compiling import compiled
from testbed.sim.cohort.links import DOWN, count, counted
from testbed.sim.cohort.state import (
    AT_JITTER,
    ATTEMPT,
    DEVICE_ROW,
    DOWN_LINK,
    DROPPED_PACKETS,
    DUE_NS,
    ENTITY,
    FIRST_END_NS,
    FIRST_FREE,
    FIRST_START_NS,
    GROUP_ROW,
    HEADER_BYTES,
    IS_BROKEN,
    KEYS,
    LAST_INDEX,
    LAST_JITTER_NS,
    LAST_QUEUE_NS,
    LAST_RETRANSMIT_NS,
    LAST_SENT_NS,
    LAST_SERIALISE_NS,
    LIMIT_BYTES,
    LINK_COUNTERS,
    LOSS_U32,
    LOST_PACKETS,
    MAX_RETRANSMISSIONS,
    MESSAGE,
    MESSAGES,
    NEXT,
    NOBODY,
    NOTES,
    NUM_FREE,
    PACKET,
    PACKETS,
    PAYLOAD_BYTES,
    PEAK_BYTES,
    PROPAGATION_NS,
    RATE_BPS,
    RETRANSMITTED,
    SENDING_NS,
    SENT_NS,
    TIMEOUT_NS,
    TOKEN_INDEX,
    UP_COUNTERS,
    WIRE_BYTES,
    WIRE_FREE_NS,
    ZERO,
    Cells,
)

TOKEN_BYTES = 4  # testbed.actors.calls
_PARTS = tuple(
    HOPS.index(hop)
    for hop in (Hop.DOWN_QUEUE, Hop.DOWN_SERIALISE, Hop.DOWN_RETRANSMIT, Hop.DOWN_PROPAGATE, Hop.DOWN_JITTER)
)
_QUEUE, _SERIALISE, _RETRANSMIT, _PROPAGATE, _JITTER = _PARTS


@compiled
def stream(fixed: Cells, live: Cells, slot: int, now_ns: int, index: int) -> None:
    """Token number `index` is sent now; repeats that are due by now went before it."""
    _repeat_until(fixed, live, slot, now_ns)
    device = live[slot + DEVICE_ROW]
    counters = device + UP_COUNTERS + LINK_COUNTERS
    note = _borrowed(live)
    live[note + MESSAGE], live[note + PACKET] = counted(fixed, counters, MESSAGES), counted(fixed, counters, PACKETS)
    live[note + ATTEMPT], live[note + TOKEN_INDEX], live[note + SENT_NS] = ZERO, index, now_ns
    count(fixed, counters, MESSAGES, 1)
    count(fixed, counters, PACKETS, 1)
    fixed[counters + PAYLOAD_BYTES] += TOKEN_BYTES
    live[slot + PAYLOAD_DOWN] += TOKEN_BYTES
    _offer(fixed, live, slot, note, now_ns)


@compiled
def drained(fixed: Cells, live: Cells, slot: int, now_ns: int) -> int:
    """The server's last iteration ended now and its token is sent: when the device has all of them."""
    while live[slot + NOTES] != NOBODY:
        _repeat_until(fixed, live, slot, live[live[slot + NOTES] + DUE_NS])
    ended_ns = live[slot + LAST_TOKEN_NS]
    link = live[slot + GROUP_ROW] + DOWN_LINK
    at_ns = live[slot + LAST_SENT_NS]
    at_ns = _part(live, slot, _QUEUE, at_ns, live[slot + LAST_QUEUE_NS], now_ns)
    at_ns = _part(live, slot, _SERIALISE, at_ns, live[slot + LAST_SERIALISE_NS], now_ns)
    at_ns = _part(live, slot, _RETRANSMIT, at_ns, live[slot + LAST_RETRANSMIT_NS], now_ns)
    at_ns = _part(live, slot, _PROPAGATE, at_ns, fixed[link + PROPAGATION_NS], now_ns)
    _part(live, slot, _JITTER, at_ns, live[slot + LAST_JITTER_NS], now_ns)
    return ended_ns


@compiled
def _part(live: Cells, slot: int, hop: int, start_ns: int, duration_ns: int, now_ns: int) -> int:
    """What of a part comes after now; where it ends."""
    end_ns = start_ns + duration_ns
    if end_ns > now_ns:
        live[slot + hop] += end_ns - max(start_ns, now_ns)
    return end_ns


@compiled
def _borrowed(live: Cells) -> int:
    note = live[FIRST_FREE]
    live[FIRST_FREE] = live[note + NEXT]
    live[NUM_FREE] -= 1
    live[note + REQUEST] = NOBODY
    return note


@compiled
def _given_back(live: Cells, note: int) -> None:
    live[note + NEXT], live[FIRST_FREE] = live[FIRST_FREE], note
    live[NUM_FREE] += 1


@compiled
def _repeat_until(fixed: Cells, live: Cells, slot: int, now_ns: int) -> None:
    """Hand over again what is due by now, in order."""
    counters = live[slot + DEVICE_ROW] + UP_COUNTERS + LINK_COUNTERS
    while live[slot + NOTES] != NOBODY and live[live[slot + NOTES] + DUE_NS] <= now_ns:
        note = live[slot + NOTES]
        live[slot + NOTES] = live[note + NEXT]
        live[note + ATTEMPT] += 1
        count(fixed, counters, RETRANSMITTED, 1)
        live[slot + RETRANSMISSIONS] += 1
        _offer(fixed, live, slot, note, live[note + DUE_NS])


@compiled
def _offer(fixed: Cells, live: Cells, slot: int, note: int, now_ns: int) -> None:
    """One packet to the queue: it arrives, or waits for its repeat."""
    device, link = live[slot + DEVICE_ROW], live[slot + GROUP_ROW] + DOWN_LINK
    counters = device + UP_COUNTERS + LINK_COUNTERS
    wire_bytes = fixed[link + HEADER_BYTES] + TOKEN_BYTES
    packet_ns = ceil_ns(8 * wire_bytes, fixed[link + RATE_BPS])
    wait_ns = max(ZERO, live[slot + WIRE_FREE_NS] - now_ns)
    backlog_bytes = -(-wait_ns // packet_ns) * wire_bytes  # all packets are alike, back to back
    start_ns = end_ns = now_ns
    is_taken = backlog_bytes + wire_bytes <= fixed[link + LIMIT_BYTES]
    if is_taken:
        start_ns += wait_ns
        end_ns = start_ns + packet_ns
        live[slot + WIRE_FREE_NS] = end_ns
        live[slot + WIRE_DOWN] += wire_bytes
        fixed[counters + WIRE_BYTES] += wire_bytes
        fixed[counters + SENDING_NS] += packet_ns
        fixed[counters + PEAK_BYTES] = max(fixed[counters + PEAK_BYTES], backlog_bytes + wire_bytes)
    if live[note + ATTEMPT] == 0:
        live[note + FIRST_START_NS], live[note + FIRST_END_NS] = start_ns, end_ns
    key = draws_key(fixed[KEYS + DOWN], fixed[device + ENTITY])
    number = (live[note + ATTEMPT] << ATTEMPT_SHIFT) + live[note + PACKET]
    if is_taken and (fixed[link + LOSS_U32] == 0 or draw_u32(key, number) >= fixed[link + LOSS_U32]):
        _arrive(fixed, live, slot, note, end_ns)
        _given_back(live, note)
        return
    count(fixed, counters, LOST_PACKETS if is_taken else DROPPED_PACKETS, 1)
    if live[note + ATTEMPT] == fixed[link + MAX_RETRANSMISSIONS]:
        fixed[IS_BROKEN] = 1
        _given_back(live, note)
        return
    live[note + DUE_NS] = end_ns + fixed[link + TIMEOUT_NS]
    _put_in_order(live, slot, note)


@compiled
def _put_in_order(live: Cells, slot: int, note: int) -> None:
    """Behind all that are due no later."""
    before, after = NOBODY, live[slot + NOTES]
    while after != NOBODY and live[after + DUE_NS] <= live[note + DUE_NS]:
        before, after = after, live[after + NEXT]
    live[note + NEXT] = after
    if before == NOBODY:
        live[slot + NOTES] = note
    else:
        live[before + NEXT] = note


@compiled
def _arrive(fixed: Cells, live: Cells, slot: int, note: int, left_ns: int) -> None:
    device, link = live[slot + DEVICE_ROW], live[slot + GROUP_ROW] + DOWN_LINK
    jitter_ns, index = ZERO, live[note + TOKEN_INDEX]
    if fixed[link + AT_JITTER] >= 0:
        u32 = draw_u32(draws_key(fixed[KEYS + 2 + DOWN], fixed[device + ENTITY]), live[note + MESSAGE])
        jitter_ns = quantile(fixed, fixed[link + AT_JITTER], u32)
    ended_ns = left_ns + fixed[link + PROPAGATION_NS] + jitter_ns
    if index == 0:
        live[slot + FIRST_TOKEN_NS] = ended_ns
    last_ns = live[slot + LAST_TOKEN_NS]
    if ended_ns < last_ns or (ended_ns == last_ns and index > live[slot + LAST_INDEX]):
        return
    live[slot + LAST_TOKEN_NS], live[slot + LAST_INDEX] = ended_ns, index
    live[slot + LAST_SENT_NS] = live[note + SENT_NS]
    live[slot + LAST_QUEUE_NS] = live[note + FIRST_START_NS] - live[note + SENT_NS]
    live[slot + LAST_SERIALISE_NS] = live[note + FIRST_END_NS] - live[note + FIRST_START_NS]
    live[slot + LAST_RETRANSMIT_NS] = left_ns - live[note + FIRST_END_NS]
    live[slot + LAST_JITTER_NS] = jitter_ns
