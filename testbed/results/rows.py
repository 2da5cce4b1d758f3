"""The requests of a run as one flat array of integers that grows while events come: about 0.3 kB a request."""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

from testbed.core.events import (
    CodecChanged,
    Outcome,
    PrefixFound,
    RequestArrived,
    RequestEnded,
    RequestRequeued,
    SequencePreempted,
    SequenceResumed,
    TokenDelivered,
    TransferEnded,
)
from testbed.core.request_row import (
    CODEC_CHANGES,
    CURRENT_CODEC,
    END_NS,
    FIRST_TOKEN_NS,
    LAST_TOKEN_NS,
    NUM_HOPS,
    OUTCOME,
    OUTCOMES,
    OUTPUT_TOKENS,
    PAYLOAD_UP,
    REASON,
    REQUEST,
    RETRANSMISSIONS,
    SPLIT,
    UNKNOWN,
    WIDTH,
    WIRE_UP,
)

_NO_HOPS = (0,) * NUM_HOPS
_NOTHING_YET = (UNKNOWN,) * 7  # admitted, first token, last token, end, split, server, codec


class RequestRows:
    """One row a request, in order of arrival. Every number is of the request's own events."""

    def __init__(self) -> None:
        self.cells = array("q")
        self.base: dict[int, int] = {}  # request -> index of its row's first cell
        self.codecs: dict[str, int] = {}
        self.reasons: dict[str, int] = {"": 0}
        self.tokens: dict[int, array[int]] = {}  # request -> token ids, for real ones
        self.moves: dict[
            int, list[int]
        ] = {}  # request -> preemptions, bytes swapped, positions run again, found, requeues
        self._outcomes = {outcome: index for index, outcome in enumerate(OUTCOMES)}

    def arrived(self, event: RequestArrived) -> None:
        assert event.request not in self.base, "a request arrives once"
        row = (
            *_NO_HOPS,
            *(event.request, event.device, event.prompt_tokens, event.max_output_tokens, 0, event.time_ns),
            *_NOTHING_YET,
            *(self._outcomes[Outcome.INCOMPLETE], self.reasons[""]),
            *(0, 0, 0, 0, 0, 0, UNKNOWN),
        )
        base = len(self.cells)
        self.cells.extend(row)
        self.base[event.request] = base

    def preempted(self, event: SequencePreempted) -> None:
        moves = self.moves.setdefault(event.request, [0, 0, 0, 0, 0])
        moves[0] += 1
        moves[1] += event.swapped_bytes

    def resumed(self, event: SequenceResumed) -> None:
        moves = self.moves[event.request]
        moves[1] += event.swapped_bytes
        moves[2] += event.recomputed_tokens

    def prefix_found(self, event: PrefixFound) -> None:
        self.moves.setdefault(event.request, [0, 0, 0, 0, 0])[3] += event.kv_tokens

    def requeued(self, event: RequestRequeued) -> None:
        self.moves.setdefault(event.request, [0, 0, 0, 0, 0])[4] += 1

    def codec_number(self, codec: str) -> int:
        return self.codecs.setdefault(codec, len(self.codecs))

    def codec_changed(self, event: CodecChanged) -> None:
        base = self.base[event.request]
        self.cells[base + CODEC_CHANGES] += 1
        self.cells[base + CURRENT_CODEC] = self.codec_number(event.codec)

    def message_codec(self, event: TransferEnded) -> int:
        """What encoded a message: UNKNOWN for token ids."""
        base = self.base[event.request]
        is_hidden = event.direction == "up" and self.cells[base + SPLIT] > 0
        return self.cells[base + CURRENT_CODEC] if is_hidden else UNKNOWN

    def token(self, event: TokenDelivered) -> None:
        base = self.base[event.request]
        cells = self.cells
        if event.index == 0:
            cells[base + FIRST_TOKEN_NS] = event.time_ns
        cells[base + LAST_TOKEN_NS] = event.time_ns
        cells[base + OUTPUT_TOKENS] = event.index + 1
        if event.token >= 0:
            self.tokens.setdefault(event.request, array("q")).append(event.token)

    def transfer(self, event: TransferEnded) -> None:
        base = self.base[event.request]
        cells = self.cells
        down = event.direction == "down"
        cells[base + PAYLOAD_UP + down] += event.payload_bytes
        cells[base + WIRE_UP + down] += event.wire_bytes
        cells[base + RETRANSMISSIONS] += event.num_retransmissions

    def ended(self, event: RequestEnded) -> None:
        base = self.base[event.request]
        self.cells[base + OUTCOME] = self._outcomes[event.outcome]
        self.cells[base + REASON] = self.reasons.setdefault(event.reason, len(self.reasons))
        if event.outcome is not Outcome.INCOMPLETE:
            self.cells[base + END_NS] = event.time_ns

    def table(self) -> npt.NDArray[np.int64]:
        """All rows, sorted by request: [requests, WIDTH]."""
        rows_RC = np.frombuffer(self.cells, dtype=np.int64).reshape(-1, WIDTH)
        return rows_RC[np.argsort(rows_RC[:, REQUEST], kind="stable")]
