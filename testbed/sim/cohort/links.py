"""One message over a link that no other message uses meanwhile: selective repeat in closed form.

A device answers one request at a time, and at a cut behind layer 0 each message waits for the one before. So the wire
is free whenever a message is sent or repeated, and its end follows from its own draws. The law, the draws and every
part of the delay are those of testbed.network_models.transports.selective_repeat at resolution `messages`.
"""

from __future__ import annotations

import numpy as np

from testbed.core.events import HOPS, Hop
from testbed.core.request_row import PAYLOAD_UP, RETRANSMISSIONS, WIRE_UP
from testbed.network_models.losses.bernoulli import ATTEMPT_SHIFT
from testbed.sim.cohort.arithmetic import ceil_ns, draw_u32, draws_key, quantile
from testbed.sim.cohort.compiling import compiled
from testbed.sim.cohort.state import (
    AT_JITTER,
    AT_MISSING,
    DEVICE_ROW,
    DROPPED_PACKETS,
    ENTITY,
    FULL_NS,
    GROUP_ROW,
    HEADER_BYTES,
    IS_COLOCATED,
    KEYS,
    LIMIT_BYTES,
    LINK_COUNTERS,
    LINK_WIDTH,
    LOSS_U32,
    LOST_BYTES,
    LOST_MESSAGES,
    LOST_PACKETS,
    MAX_RETRANSMISSIONS,
    MESSAGES,
    MTU_BYTES,
    ONE,
    PACKETS,
    PAYLOAD_BYTES,
    PEAK_BYTES,
    PROPAGATION_NS,
    RATE_BPS,
    RETRANSMITTED,
    SENDING_NS,
    TIMEOUT_NS,
    UP_COUNTERS,
    UP_LINK,
    WIRE_BYTES,
    ZERO,
    Cells,
)

UP, DOWN = ZERO, ONE
_HALF, _LOW_HALF = 32, (1 << 32) - 1  # two counters a cell
# Of the hops up; those down lie as much further as the directions do.
_SERIALISE, _PROPAGATE = HOPS.index(Hop.UP_SERIALISE), HOPS.index(Hop.UP_PROPAGATE)
_JITTER, _RETRANSMIT = HOPS.index(Hop.UP_JITTER), HOPS.index(Hop.UP_RETRANSMIT)
_DOWNWARDS = HOPS.index(Hop.DOWN_SERIALISE) - _SERIALISE


@compiled
def counted(fixed: Cells, counters: int, counter: int) -> int:
    """What a 32-bit counter holds."""
    return (fixed[counters + counter // 2] >> (_HALF * (counter % 2))) & _LOW_HALF


@compiled
def count(fixed: Cells, counters: int, counter: int, amount: int) -> None:
    fixed[counters + counter // 2] += amount << (_HALF * (counter % 2))


@compiled
def carry(fixed: Cells, live: Cells, slot: int, direction: int, now_ns: int, payload_bytes: int) -> int:
    """When a message of this sequence arrives; where its link gives it up, minus that time."""
    device = live[slot + DEVICE_ROW]
    link = live[slot + GROUP_ROW] + UP_LINK + direction * LINK_WIDTH
    counters = device + UP_COUNTERS + direction * LINK_COUNTERS
    message = counted(fixed, counters, MESSAGES)
    count(fixed, counters, MESSAGES, 1)
    fixed[counters + PAYLOAD_BYTES] += payload_bytes
    live[slot + PAYLOAD_UP + direction] += payload_bytes
    if fixed[link + IS_COLOCATED]:
        return now_ns
    room = fixed[link + MTU_BYTES] - fixed[link + HEADER_BYTES]
    num_packets = max(1, -(-payload_bytes // room))
    last_bytes = fixed[link + HEADER_BYTES] + payload_bytes - (num_packets - 1) * room
    key = draws_key(fixed[KEYS + direction], fixed[device + ENTITY])
    first = counted(fixed, counters, PACKETS)
    count(fixed, counters, PACKETS, num_packets)
    num_missing, end_ns = _round(
        fixed, live, slot, direction, now_ns, num_packets, last_bytes, first, key, 0, num_packets
    )
    first_end_ns, attempt = end_ns, 0
    hops = slot + direction * _DOWNWARDS
    live[hops + _SERIALISE] += first_end_ns - now_ns
    while num_missing:
        again_ns = end_ns + fixed[link + TIMEOUT_NS]
        if attempt == fixed[link + MAX_RETRANSMISSIONS]:
            count(fixed, counters, LOST_MESSAGES, 1)
            fixed[counters + LOST_BYTES] += payload_bytes
            live[hops + _RETRANSMIT] += again_ns - first_end_ns
            return -again_ns
        attempt += 1
        count(fixed, counters, RETRANSMITTED, num_missing)
        live[slot + RETRANSMISSIONS] += num_missing
        num_missing, end_ns = _round(
            fixed, live, slot, direction, again_ns, num_packets, last_bytes, first, key, attempt, num_missing
        )
    jitter_ns, table = ZERO, fixed[link + AT_JITTER]
    if table >= 0:
        u32 = draw_u32(draws_key(fixed[KEYS + 2 + direction], fixed[device + ENTITY]), message)
        jitter_ns = quantile(fixed, table, u32)
    live[hops + _RETRANSMIT] += end_ns - first_end_ns
    live[hops + _PROPAGATE] += fixed[link + PROPAGATION_NS]
    live[hops + _JITTER] += jitter_ns
    return end_ns + fixed[link + PROPAGATION_NS] + jitter_ns


@compiled
def _round(
    fixed: Cells,
    live: Cells,
    slot: int,
    direction: int,
    start_ns: int,
    num_packets: int,
    last_bytes: int,
    first: int,
    key: np.uint64,
    attempt: int,
    num_offered: int,
) -> tuple[int, int]:
    """Packets back to back, the first time all and then what is missing: how many do not get through, and its end.

    Full-size packets beyond the queue's limit are dropped; the last, smaller one may still fit.
    """
    link = live[slot + GROUP_ROW] + UP_LINK + direction * LINK_WIDTH
    counters = live[slot + DEVICE_ROW] + UP_COUNTERS + direction * LINK_COUNTERS
    missing, mtu, limit = fixed[AT_MISSING], fixed[link + MTU_BYTES], fixed[link + LIMIT_BYTES]
    has_last = attempt == 0 or fixed[missing + num_offered - 1] == num_packets - 1
    num_taken = num_offered - 1 if has_last else num_offered
    if num_taken * mtu > limit:
        num_taken = limit // mtu
    wire_bytes, end_ns = num_taken * mtu, start_ns + num_taken * fixed[link + FULL_NS]
    takes_last = has_last and last_bytes <= limit - wire_bytes
    if takes_last:
        wire_bytes += last_bytes
        end_ns += ceil_ns(8 * last_bytes, fixed[link + RATE_BPS])
    threshold, base = fixed[link + LOSS_U32], (attempt << ATTEMPT_SHIFT) + first
    num_missing = num_dropped = ZERO
    for place in range(num_offered):
        packet = place if attempt == 0 else fixed[missing + place]
        is_taken = place < num_taken or (takes_last and place == num_offered - 1)
        if is_taken and (threshold == 0 or draw_u32(key, base + packet) >= threshold):
            continue
        num_dropped += not is_taken
        fixed[missing + num_missing] = packet
        num_missing += 1
    if num_missing:
        count(fixed, counters, LOST_PACKETS, num_missing - num_dropped)
        count(fixed, counters, DROPPED_PACKETS, num_dropped)
    fixed[counters + WIRE_BYTES] += wire_bytes
    fixed[counters + SENDING_NS] += end_ns - start_ns
    fixed[counters + PEAK_BYTES] = max(fixed[counters + PEAK_BYTES], wire_bytes)
    live[slot + WIRE_UP + direction] += wire_bytes
    return num_missing, end_ns
