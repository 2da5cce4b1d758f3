"""A model cut in two, as an evaluation sees it: token ids in, logits out, and real messages in between.

Every pass goes front shard -> encoder -> message bytes -> decoder -> back shard, in sessions of its own on both sides.
Messages are counted by phase: a prefill message holds all tokens of a text, a decode message one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from testbed.codecs.framing import Codec, Envelope
from testbed.models.shard import Shard, ShardInput

F32Array = npt.NDArray[np.float32]


@dataclass(slots=True)
class Traffic:
    """Messages of one phase that crossed the cut, with `hidden_size` values a token."""

    hidden_size: int
    num_messages: int = 0
    num_tokens: int = 0
    num_bytes: int = 0

    def add(self, num_tokens: int, num_bytes: int) -> None:
        self.num_messages += 1
        self.num_tokens += num_tokens
        self.num_bytes += num_bytes

    def as_data(self) -> dict[str, int]:
        """As JSON types; side information and frames of the messages are in `bytes`."""
        values = self.num_tokens * self.hidden_size
        return {"messages": self.num_messages, "tokens": self.num_tokens, "values": values, "bytes": self.num_bytes}


class SplitModel:
    """A front, a codec and a back that fits the front's cut; `setting` is what the codec was made from."""

    def __init__(self, front: Shard, back: Shard, codec: Codec, setting: str) -> None:
        assert (front.start, back.is_last, front.stop) == (0, True, back.start), "the two shards of one cut"
        self.front, self.back, self.setting = front, back, setting
        self._codec = codec
        width = front.source.shape.hidden_size
        self.prefill, self.decode = Traffic(width), Traffic(width)

    @property
    def max_tokens(self) -> int:
        """The longest text that the model can take at once."""
        return self.front.source.shape.max_positions

    def logits(self, inputs: Sequence[Sequence[int]]) -> list[F32Array]:
        """[n, V] of every text, one prefill message each; more than one text runs as one batch.

        A text that runs alone gives what the unsplit model gives, bit for bit where weights and codec lose nothing;
        in a batch the same but for rounding.
        """
        with self._sessions(len(inputs)) as sessions:
            return self._pass(sessions, inputs, keep="all")

    def generate(self, prompt: Sequence[int], *, max_new: int, stop_ids: Collection[int] = ()) -> list[int]:
        """Greedy continuation, a decode message a token; the stopping token is not part of it."""
        written: list[int] = []
        with self._sessions(1) as sessions:
            (logits_V,) = self._pass(sessions, [prompt], keep="last")
            while len(written) < max_new and (token := int(np.argmax(logits_V))) not in stop_ids:
                written.append(token)
                if len(written) < max_new:
                    (logits_V,) = self._pass(sessions, [[token]], keep="last")
        return written

    @contextmanager
    def _sessions(self, count: int) -> Iterator[range]:
        """So many fresh sessions on both sides."""
        sessions = range(count)
        for session in sessions:
            self.front.open(session)
            self.back.open(session)
        try:
            yield sessions
        finally:
            for session in sessions:
                self.front.close(session)
                self.back.close(session)

    def _pass(
        self, sessions: Sequence[int], inputs: Sequence[Sequence[int]], *, keep: Literal["last", "all"]
    ) -> list[F32Array]:
        """New tokens of every session through both shards, and what is between them."""
        pasts = [self.back.length(session) for session in sessions]
        texts = [ShardInput(session=session, tokens=ids) for session, ids in zip(sessions, inputs, strict=True)]
        crossed = [
            ShardInput(session=session, hidden=self._cross(session, past, hidden_ND))
            for session, past, hidden_ND in zip(sessions, pasts, self.front.forward(texts), strict=True)
        ]
        return self.back.forward(crossed, keep=keep)

    def _cross(self, session: int, past: int, hidden_ND: F32Array) -> F32Array:
        """What the back reads of hidden states that the front has made."""
        envelope = Envelope(session=session, position=past, split=self.front.stop)
        message = self._codec.encode(hidden_ND, envelope)
        (self.decode if past else self.prefill).add(hidden_ND.shape[0], len(message))
        return self._codec.decode(message, envelope)
