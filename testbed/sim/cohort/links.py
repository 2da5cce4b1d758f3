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
    COUNT_WIDTH,
    DROPPED_PACKETS,
    ENTITY,
    FULL_NS,
    HEADER_BYTES,
    IS_COLOCATED,
    ITS_GROUP,
    JITTER,
    KEYS,
    LIMIT_BYTES,
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
    SUM_WIDTH,
    TIMEOUT_NS,
    UP_LINK,
    WIRE_BYTES,
    ZERO,
    Arrays,
)

UP, DOWN = ZERO, ONE
_SERIALISE = (HOPS.index(Hop.UP_SERIALISE), HOPS.index(Hop.DOWN_SERIALISE))
_PROPAGATE = (HOPS.index(Hop.UP_PROPAGATE), HOPS.index(Hop.DOWN_PROPAGATE))
_JITTER = (HOPS.index(Hop.UP_JITTER), HOPS.index(Hop.DOWN_JITTER))
_RETRANSMIT = (HOPS.index(Hop.UP_RETRANSMIT), HOPS.index(Hop.DOWN_RETRANSMIT))


@compiled
def carry(arrays: Arrays, slot: int, device: int, direction: int, now_ns: int, payload_bytes: int) -> int:
    """When a message of this sequence arrives; where its link gives it up, minus that time."""
    groups, group = arrays.groups, np.int64(arrays.counts[device, ITS_GROUP])
    link, sums, counts = UP_LINK + direction * LINK_WIDTH, arrays.sums, arrays.counts
    sum0, count0 = direction * SUM_WIDTH, direction * COUNT_WIDTH
    row = arrays.slots
    message = np.int64(counts[device, count0 + MESSAGES])
    counts[device, count0 + MESSAGES] += 1
    sums[device, sum0 + PAYLOAD_BYTES] += payload_bytes
    row[slot, PAYLOAD_UP + direction] += payload_bytes
    if groups[group, link + IS_COLOCATED]:
        return now_ns
    mtu, limit = groups[group, link + MTU_BYTES], groups[group, link + LIMIT_BYTES]
    room = mtu - groups[group, link + HEADER_BYTES]
    num_packets = max(1, -(-payload_bytes // room))
    last_bytes = groups[group, link + HEADER_BYTES] + payload_bytes - (num_packets - 1) * room
    rate = groups[group, link + RATE_BPS]
    last_ns = ceil_ns(8 * last_bytes, rate)
    first = np.int64(counts[device, count0 + PACKETS])
    counts[device, count0 + PACKETS] += num_packets
    entity, threshold = np.uint64(sums[device, ENTITY]), groups[group, link + LOSS_U32]
    key = draws_key(np.uint64(arrays.control[KEYS + direction]), entity)
    missing, num_missing = arrays.missing, num_packets
    attempt = 0
    first_end_ns = end_ns = now_ns
    start_ns = now_ns
    while True:
        # A round: the packets still missing, in order, the first round all of them.
        num_offered = num_missing
        has_last = attempt == 0 or missing[num_offered - 1] == num_packets - 1
        num_full = num_offered - 1 if has_last else num_offered
        num_taken = num_full if num_full * mtu <= limit else limit // mtu
        wire_bytes = num_taken * mtu
        takes_last = has_last and last_bytes <= limit - wire_bytes
        end_ns = start_ns + num_taken * groups[group, link + FULL_NS]
        if takes_last:
            wire_bytes += last_bytes
            end_ns += last_ns
        if attempt == 0:
            first_end_ns = end_ns
        else:
            counts[device, count0 + RETRANSMITTED] += num_offered
            row[slot, RETRANSMISSIONS] += num_offered
        num_missing = num_lost = 0
        for place in range(num_offered):
            packet = place if attempt == 0 else missing[place]
            is_taken = place < num_taken or (takes_last and place == num_offered - 1)
            if is_taken and (threshold == 0 or draw_u32(key, attempt << ATTEMPT_SHIFT | (first + packet)) >= threshold):
                continue
            num_lost += is_taken
            missing[num_missing] = packet
            num_missing += 1
        counts[device, count0 + LOST_PACKETS] += num_lost
        counts[device, count0 + DROPPED_PACKETS] += num_missing - num_lost
        sums[device, sum0 + WIRE_BYTES] += wire_bytes
        sums[device, sum0 + SENDING_NS] += end_ns - start_ns
        sums[device, sum0 + PEAK_BYTES] = max(sums[device, sum0 + PEAK_BYTES], wire_bytes)
        row[slot, WIRE_UP + direction] += wire_bytes
        if num_missing == 0:
            break
        start_ns = end_ns + groups[group, link + TIMEOUT_NS]
        if attempt == groups[group, link + MAX_RETRANSMISSIONS]:
            counts[device, count0 + LOST_MESSAGES] += 1
            sums[device, sum0 + LOST_BYTES] += payload_bytes
            row[slot, _SERIALISE[direction]] += first_end_ns - now_ns
            row[slot, _RETRANSMIT[direction]] += start_ns - first_end_ns
            return -start_ns
        attempt += 1
    jitter_ns, table = 0, groups[group, link + JITTER]
    if table >= 0:
        u32 = draw_u32(draws_key(np.uint64(arrays.control[KEYS + 2 + direction]), entity), message)
        jitter_ns = quantile(arrays.jitter, table, u32)
    row[slot, _SERIALISE[direction]] += first_end_ns - now_ns
    row[slot, _RETRANSMIT[direction]] += end_ns - first_end_ns
    row[slot, _PROPAGATE[direction]] += groups[group, link + PROPAGATION_NS]
    row[slot, _JITTER[direction]] += jitter_ns
    return end_ns + groups[group, link + PROPAGATION_NS] + jitter_ns
