"""The cohort engine's memory: three arrays of 64-bit integers, and what each cell holds.

A row (of a device, a server, a sequence under way) is named by the index of its first cell, so `live[slot + READY_NS]`
reads like an attribute. Few arrays, because compiled code hands them on at every call; plain numbers for columns,
because it can't look up names.

`fixed` keeps its size: what is known at the start, and counters of devices and servers. `live` holds sequences under
way, in *slots*, and what has ended and was not fetched yet; its slots grow in number. `agenda` is a heap of events.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from testbed.core.request_row import WIDTH


class Cells(Protocol):
    """One of the arrays, as kernels see it."""

    def __getitem__(self, cell: int) -> int: ...

    def __setitem__(self, cell: int, value: int) -> None: ...

    def __len__(self) -> int: ...


def typed(value: int) -> int:
    """A constant that kernels are called with: compiled code would make a version of them for every plain number."""
    return np.int64(value)  # type: ignore[return-value]  # an int to whoever reckons with it


NEVER, NOBODY, ZERO, ONE = typed(1 << 62), typed(-1), typed(0), typed(1)

# The head of `fixed`.
(
    NOW_NS,
    NEXT_ROOT,  # the next request that waits for none
    NUM_ENDED,
    NUM_PASSES,  # of sequences through servers
    NUM_LAYERS,  # of the model
    RECORDS_ITERATIONS,
    IS_BROKEN,  # something happened that this engine can't tell exactly
    NUM_SPLITS,
    NUM_SERVERS,
    SERVER_STRIDE,  # from one server's row to the next: its batch lies between
    TABLE_STRIDE,  # from one law to the next of a group
    AT_REQUESTS,
    AT_DEVICES,
    AT_GROUPS,
    AT_SPLITS,
    AT_SERVERS,
    AT_MISSING,  # scratch: packets of one message
    KEYS,  # of the draws of loss up, loss down, jitter up, jitter down
) = range(18)
FIXED_HEAD = KEYS + 4

# The head of `live`.
NUM_ROWS, MOST_ROWS, AT_ROWS, NUM_ITERATIONS, MOST_ITERATIONS, AT_ITERATIONS, AT_SLOTS, NUM_FREE, FIRST_FREE = range(9)
LIVE_HEAD = 9
ITERATION_WIDTH = 9  # as testbed.results has it

# The head of `agenda`, then cells of events: time, key, datum.
NUM_EVENTS = 0
AGENDA_HEAD = 1
EVENT_WIDTH = 3

# A request. `BEHIND` it waits, for the same device, that request, or asks for admission at the same instant. One that
# waits for none has no gap (NOBODY); any other arrives its gap after the end of the one whose `FOLLOWER` it is.
ITS_ARRIVAL_NS, ITS_DEVICE, ITS_PROMPT, ITS_OUTPUT, BEHIND, FOLLOWER, GAP_NS = range(7)
REQUEST_WIDTH = 7

# A device: its group's row, who waits for it, then counters of its link, first up and then down.
ITS_GROUP, IS_TAKEN, WAITING_HEAD, WAITING_TAIL, ENTITY, COMPUTING_NS, PEAK_MEMORY, UP_COUNTERS = range(8)
PACKETS, MESSAGES, RETRANSMITTED, LOST_PACKETS, DROPPED_PACKETS, LOST_MESSAGES = range(6)
COUNTER_WIDTH = 3  # two 32-bit counters a cell
PAYLOAD_BYTES, WIRE_BYTES, SENDING_NS, LOST_BYTES, PEAK_BYTES = range(COUNTER_WIDTH, COUNTER_WIDTH + 5)
LINK_COUNTERS = COUNTER_WIDTH + 5
DEVICE_WIDTH = UP_COUNTERS + 2 * LINK_COUNTERS

# What a processor's roofline adds up, as `RooflineConstants` has it; servers' and groups' rows begin with it.
(
    OVERHEAD_NS,
    HOST_NS,  # a layer takes this at least
    BANDWIDTH,
    COMPUTE,
    OVERLAPS_FULLY,
    LAYER_BYTES,
    TOKEN_BYTES,
    TOKEN_FLOPS,
    POSITION_BYTES,
    PAIR_FLOPS,
    ALL_REDUCE_NS,
    RING_BYTES,
    RING_BANDWIDTH,
    EMBEDDING_BYTES,
    HEAD_BYTES,
    HEAD_ROW_BYTES,
    HEAD_ROW_FLOPS,
) = range(17)
COST_WIDTH = 17

# A link's direction, in a group's row.
(
    IS_COLOCATED,
    RATE_BPS,
    FULL_NS,  # a full-size packet's time on the wire
    MTU_BYTES,
    HEADER_BYTES,
    LIMIT_BYTES,
    PROPAGATION_NS,
    LOSS_U32,
    TIMEOUT_NS,
    MAX_RETRANSMISSIONS,
    AT_JITTER,  # its quantile table in `fixed`, or NOBODY
) = range(11)
LINK_WIDTH = 11

# A group, behind its devices' costs: both directions of its link, what its policy decided, and its laws' tables.
UP_LINK = COST_WIDTH
DOWN_LINK = UP_LINK + LINK_WIDTH
(
    SPLIT_LAYER,
    ITS_SPLIT,  # the row of its split
    CODEC_NUMBER,
    FREE_BYTES,
    HIDDEN_BYTES,  # of a token's hidden state as the codec reads it
    ENCODE_PERCENT,
    DECODE_PERCENT,
    HEAD_NS,  # a device with all layers: its head, for one row
    STREAMS,  # the server goes on by itself and sends tokens down a link
    AT_LAWS,  # bytes of a message, of a device's memory, of a server's, each by number of tokens
) = range(DOWN_LINK + LINK_WIDTH, DOWN_LINK + LINK_WIDTH + 10)
GROUP_WIDTH = DOWN_LINK + LINK_WIDTH + 10

# A split that servers serve, ascending: its layer, and what a batch being formed adds up to there.
LAYER, TOKENS, POSITIONS, PAIRS = range(4)
SPLIT_WIDTH = 4

# A server, behind its costs; behind it the slots of the iteration under way.
(
    SERVER_NUMBER,
    OUTSTANDING,  # requests routed here that have not ended
    KV_CAPACITY,
    KV_RESERVED,
    PEAK_KV,
    KV_TOTAL,  # tokens of all resident sequences
    MAX_BATCH,
    MAX_PREFILL,
    CHUNK,  # tokens of an iteration; 0: prompts run whole
    PRIORITY,  # between steps and prefills
    MAX_RESIDENT,
    NUM_RESIDENT,  # sequences that hold KV
    PARTIAL,  # the prefill that is partly done
    IS_BUSY,
    PLANNED_NS,  # when an idle one will form its next batch
    START_NS,
    DECODE_NS,  # of the iteration under way
    BACK_NS,
    NUM_BATCH,
    NUM_WAITING,  # ready but left out of it
    ITERATIONS,
    BUSY_NS,
    COMING,  # root of the heap of sequences on their way here
    STEPS,  # ready for a decode step, in order: first, last, number
    PREFILLS,  # the same
    BATCH,
) = (*range(COST_WIDTH, COST_WIDTH + 24), COST_WIDTH + 26, COST_WIDTH + 29)
FIRST, LAST, LENGTH = range(3)
ARRIVAL_FIRST, DECODE_FIRST, PREFILL_FIRST = range(3)  # priorities

# A slot, behind the cells of its row of results.
(
    DEVICE_ROW,
    GROUP_ROW,
    SERVER_ROW,
    READY_NS,  # when it has come to its server for its next pass
    NEW_TOKENS,  # of that pass
    LEFT_TOKENS,  # of them, still to run
    SHARE_TOKENS,  # of the iteration under way
    MESSAGE_BYTES,  # that came for the pass
    RESERVE_BYTES,  # of the server's KV cache, at full length
    CLAIMED_BYTES,  # of that, so far
    KV_TOKENS,  # that the server keeps of it
    CHILD,  # in the heap of those on their way to the server
    SIBLING,
    NEXT,  # behind it in the server's queue, or among free slots
    NOTES,  # its messages that wait to be repeated, the first due first
    WIRE_FREE_NS,  # where tokens stream down: when the last bit so far leaves
    LAST_INDEX,  # of its tokens, that which arrives last so far; then its parts
    LAST_SENT_NS,
    LAST_QUEUE_NS,
    LAST_SERIALISE_NS,
    LAST_RETRANSMIT_NS,
    LAST_JITTER_NS,
) = range(WIDTH, WIDTH + 22)
SLOT_WIDTH = WIDTH + 22

# A note: a free slot that stands for one message of one packet. `NEXT` is as in any slot.
DUE_NS, ATTEMPT, MESSAGE, PACKET, TOKEN_INDEX, SENT_NS, FIRST_START_NS, FIRST_END_NS = range(8)

# Why the engine hands back.
DONE, REACHED, FULL, TIGHT, BROKEN = range(5)

REASON_LENGTH, REASON_UP, REASON_DOWN, REASON_DEVICE, REASON_SERVER = map(typed, range(1, 6))
REASONS = ("", "length", "up-link timed out", "down-link timed out", "device memory", "server memory")
