"""The cohort engine's memory: struct of arrays, their columns, and what each holds.

A million devices are rows of a few arrays. A *slot* is a sequence under way: its row of results so far, then what only
the engine needs. Columns are plain numbers, because compiled code can't look up names.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from testbed.core.request_row import WIDTH

I64Array = npt.NDArray[np.int64]
I32Array = npt.NDArray[np.int32]

NEVER = 1 << 62
NOBODY = np.int64(-1)
ZERO, ONE = np.int64(0), np.int64(1)

# A slot, behind the cells of its row of results.
(
    GROUP,
    READY_NS,  # when it has come to its server for its next pass
    NEW_TOKENS,  # of that pass
    MESSAGE_BYTES,  # that came for it
    RESERVE_BYTES,  # of the server's KV cache, at full length
    CLAIMED_BYTES,  # of that, so far
    KV_TOKENS,  # that the server keeps of it
    CHILD,  # in the heap of those on their way to the server
    SIBLING,
    NEXT,  # behind it in the server's queue
) = range(WIDTH, WIDTH + 10)
SLOT_WIDTH = WIDTH + 10

# What a processor's cost model adds up (testbed.actors.costs).
(
    OVERHEAD_NS,
    BANDWIDTH,  # bytes a second
    COMPUTE,  # operations a second
    LAYER_BYTES,
    KV_BYTES,  # of a token in a layer
    TOKEN_BYTES,  # of a token's activations in a layer
    TOKEN_FLOPS,
    PAIR_FLOPS,
    EMBEDDING_BYTES,
    HEAD_BYTES,
    HEAD_ROW_BYTES,
    HEAD_ROW_FLOPS,
) = range(12)
COST_WIDTH = 12

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
    JITTER,  # row of the quantile tables, or NOBODY
) = range(11)
LINK_WIDTH = 11

# A group's row: its devices' costs, both directions of its link, and what its policy decided.
UP_LINK = COST_WIDTH
DOWN_LINK = UP_LINK + LINK_WIDTH
(
    SPLIT_LAYER,
    NUM_LAYERS,
    SPLIT_PLACE,  # of its split among those that servers serve
    CODEC_NUMBER,
    FREE_BYTES,
    HIDDEN_BYTES,  # of a token's hidden state as the codec reads it
    ENCODE_PERCENT,
    DECODE_PERCENT,
    HEAD_NS,  # a device with all layers: its head, for one row
) = range(DOWN_LINK + LINK_WIDTH, DOWN_LINK + LINK_WIDTH + 9)
GROUP_WIDTH = DOWN_LINK + LINK_WIDTH + 9

# A server's row, behind its costs.
(
    OUTSTANDING,  # requests routed here that have not ended
    KV_CAPACITY,
    KV_RESERVED,
    PEAK_KV,
    KV_TOTAL,  # tokens of all resident sequences
    MAX_BATCH,
    MAX_PREFILL,
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
    STEPS_HEAD,  # ready for a decode step, in order
    STEPS_TAIL,
    NUM_STEPS,
    PREFILLS_HEAD,
    PREFILLS_TAIL,
    NUM_PREFILLS,
) = range(COST_WIDTH, COST_WIDTH + 23)
SERVER_WIDTH = COST_WIDTH + 23

# A request.
ITS_DEVICE, ITS_PROMPT, ITS_OUTPUT, BEHIND = range(4)  # behind it waits, for the same device, that request
REQUEST_WIDTH = 4

# Laws of a number of tokens.
MESSAGE_TABLE, DEMAND_TABLE, RESERVE_TABLE = range(3)  # bytes of a message, of a device's memory, of a server's
TAIL = 4096  # where a quantile table's tail begins

# A split: its layer, then new tokens, KV positions moved and pairs attended of the batch being formed.
LAYER, TOKENS, POSITIONS, PAIRS = range(4)

# A device's counters of one direction; the other's follow.
PACKETS, MESSAGES, RETRANSMITTED, LOST_PACKETS, DROPPED_PACKETS, LOST_MESSAGES = range(6)
COUNT_WIDTH = 6
PAYLOAD_BYTES, WIRE_BYTES, SENDING_NS, LOST_BYTES, PEAK_BYTES = range(5)
SUM_WIDTH = 5
COMPUTING_NS, PEAK_MEMORY, ENTITY = range(2 * SUM_WIDTH, 2 * SUM_WIDTH + 3)  # the key of its draws: 64 bits
DEVICE_SUMS = 2 * SUM_WIDTH + 3
IS_TAKEN, WAITING_HEAD, WAITING_TAIL, ITS_GROUP = range(2 * COUNT_WIDTH, 2 * COUNT_WIDTH + 4)
DEVICE_COUNTS = 2 * COUNT_WIDTH + 4

# What is counted over all.
(
    NOW_NS,
    NEXT_ARRIVAL,
    NUM_EVENTS,  # on the heap
    NUM_FREE,  # slots
    NUM_ROWS,  # finished, not yet fetched
    NUM_ITERATIONS,  # the same
    NUM_ENDED,
    NUM_STEPS_DONE,  # passes of sequences on servers
    RECORDS_ITERATIONS,
    KEYS,  # of the draws of loss up, loss down, jitter up, jitter down
) = range(10)
CONTROL_WIDTH = KEYS + 4

ITERATION_WIDTH = 9

# Why the engine hands back.
DONE, REACHED, FULL, TIGHT = range(4)

# Typed, here and below: compiled code would make a version of a function for every plain number it is called with.
REASON_NONE, REASON_LENGTH, REASON_UP, REASON_DOWN, REASON_DEVICE, REASON_SERVER = map(np.int64, range(6))
REASONS = ("", "length", "up-link timed out", "down-link timed out", "device memory", "server memory")


class Arrays(NamedTuple):
    """Everything, in as few arrays as can be: compiled code hands all of them on at every call.

    Sizes: N requests, D devices, G groups, S servers, K splits, T numbers of tokens, C slots.
    """

    arrival_ns: I64Array  # [N]
    requests: I32Array  # [N, .]
    counts: I32Array  # [D, .]
    sums: I64Array  # [D, .]
    groups: I64Array  # [G, GROUP_WIDTH]
    tables: I64Array  # [., G, T]
    jitter: I64Array  # [., TAIL + .], quantile tables of delays: cells, then the tail's edges
    splits: I64Array  # [K, 4], that servers serve, ascending; and a batch's sums for each
    servers: I64Array  # [S, SERVER_WIDTH]
    batches: I32Array  # [S, .], slots of the iteration under way
    slots: I64Array  # [C, SLOT_WIDTH]
    free_slots: I32Array  # [C]
    events: I64Array  # [., 3], a heap of (time, key, data)
    asking: I64Array  # [C], scratch: requests that ask for admission at one instant
    missing: I64Array  # scratch: packets of one message
    rows: I64Array  # [., WIDTH], finished requests not yet fetched
    iterations: I64Array  # [., ITERATION_WIDTH], the same
    control: I64Array
