"""The row of integers that stands for a request in a run's results: which cell holds what.

Cells [0, NUM_HOPS) are the time in each hop; the others are named below. Both engines fill such rows, and the digest of
a run's results is taken over them.
"""

from __future__ import annotations

from testbed.core.events import HOPS, Outcome

UNKNOWN = -1
OUTCOMES = tuple(Outcome)

NUM_HOPS = len(HOPS)
(
    REQUEST,
    DEVICE,
    PROMPT_TOKENS,
    MAX_OUTPUT_TOKENS,
    OUTPUT_TOKENS,
    ARRIVAL_NS,
    ADMITTED_NS,
    FIRST_TOKEN_NS,
    LAST_TOKEN_NS,
    END_NS,
    SPLIT,
    SERVER,
    CODEC,  # index into the run's names of codecs
    OUTCOME,  # index into OUTCOMES
    REASON,  # index into the run's reasons
    PAYLOAD_UP,
    PAYLOAD_DOWN,
    WIRE_UP,
    WIRE_DOWN,
    RETRANSMISSIONS,
    CODEC_CHANGES,
    CURRENT_CODEC,  # of the next message of hidden states
) = range(NUM_HOPS, NUM_HOPS + 22)
WIDTH = NUM_HOPS + 22
