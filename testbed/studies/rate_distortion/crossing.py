"""A model cut in two, its inputs' hidden states at the cut, and what comes out behind a codec.

The front never hears of the codec, so hidden states are computed once a cut; only the back runs again, and only for
hidden states that it has not seen yet: many settings (every entropy coder) decode to the same values.

Shapes: n tokens of an input, d hidden size, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from testbed.codecs.agreed import Agreed, agree
from testbed.codecs.framing import Envelope
from testbed.codecs.named import make_codec
from testbed.codecs.pipeline import Pipeline
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource
from testbed.studies.rate_distortion.yardstick import F32Array, Ids, Scores, Yardstick, compare, score

PREFILL, DECODE = "prefill", "decode"
PHASES = (PREFILL, DECODE)
INPUTS_PER_BATCH = 16


@dataclass(slots=True, kw_only=True)
class Traffic:
    """Bytes of all messages by what they hold; values are n d of each."""

    messages: int = 0
    tokens: int = 0
    values: int = 0
    frame_bytes: int = 0
    sparse_bytes: int = 0
    side_bytes: int = 0
    payload_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.frame_bytes + self.sparse_bytes + self.side_bytes + self.payload_bytes


Damage = dict[str, float | str | None]
DAMAGE = ("kl_nats", "perplexity", "agreement", "accuracy", "flip_rate", "decoded")


class Crossed(NamedTuple):
    """What the back reads, input by input, and what it took."""

    hidden: Sequence[F32Array]
    traffic: Traffic


@dataclass(slots=True, kw_only=True)
class SplitInputs:
    """One cut: the inputs' hidden states there, the back, and the unsplit model's scores.

    `samples` [n, d] are hidden states of other texts, for what a session agrees on.
    """

    back: Shard
    yardstick: Yardstick
    hidden: Sequence[F32Array]
    samples: F32Array
    before: Scores | None = None
    known: dict[str, Damage] = field(default_factory=dict)

    def cross(self, codec: str, phase: str) -> Crossed:
        """Every input as one message (prefill), or a message a token (decode), encoded to bytes and decoded."""
        pipeline = make_codec(codec, self._agreed(codec))
        assert isinstance(pipeline, Pipeline), "every codec at the cut is a pipeline"
        traffic = Traffic()
        hidden = [self._crossed(pipeline, hidden_nd, phase, traffic) for hidden_nd in self.hidden]
        return Crossed(hidden, traffic)

    def damage(self, hidden: Sequence[F32Array]) -> Damage:
        """What the back makes of these hidden states, against what it makes of the exact ones.

        `decoded` is a digest of the hidden states; what is known of them is not computed again.
        """
        digest = hashlib.blake2b(digest_size=16)
        for hidden_nd in hidden:
            digest.update(np.ascontiguousarray(hidden_nd).data)
        key = digest.hexdigest()
        if key not in self.known:
            if self.before is None:
                self.before = self._scores(self.hidden)
            self.known[key] = {**compare(self.yardstick, self._scores(hidden), self.before), "decoded": key}
        return self.known[key]

    def _crossed(self, pipeline: Pipeline, hidden_nd: F32Array, phase: str, traffic: Traffic) -> F32Array:
        step = len(hidden_nd) if phase == PREFILL else 1
        parts = []
        for position in range(0, len(hidden_nd), step):
            envelope = Envelope(position=position, split=self.back.start)
            part_nd = hidden_nd[position : position + step]
            message = pipeline.encode(part_nd, envelope)
            parts.append(pipeline.decode(message, envelope))
            counts = pipeline.byte_counts(message)
            traffic.messages += 1
            traffic.tokens += len(part_nd)
            traffic.values += part_nd.size
            traffic.frame_bytes += counts.frame
            traffic.sparse_bytes += counts.sparse
            traffic.side_bytes += counts.side
            traffic.payload_bytes += counts.payload
        return np.concatenate(parts)

    def _agreed(self, codec: str) -> Agreed | None:
        return agree(codec, self.samples)

    def _scores(self, hidden: Sequence[F32Array]) -> Scores:
        """Inputs of like lengths run as one batch, always the same ones together."""
        order = sorted(range(len(hidden)), key=lambda place: len(hidden[place]))
        logits: dict[int, F32Array] = {}
        for first in range(0, len(order), INPUTS_PER_BATCH):
            places = order[first : first + INPUTS_PER_BATCH]
            inputs = [ShardInput(session=place, hidden=hidden[place]) for place in places]
            logits |= dict(zip(places, _run(self.back, inputs), strict=True))
        return score(self.yardstick, logits)


def split_inputs(source: ModelSource, cut: int, yardstick: Yardstick) -> SplitInputs:
    """Load both sides of a cut and run the front on every input."""
    front = Shard(source, start=0, stop=cut)
    hidden = _fronts(front, yardstick.inputs)
    samples = _fronts(front, yardstick.calibration)
    back = Shard(source, start=cut, stop=source.shape.num_layers)
    return SplitInputs(back=back, yardstick=yardstick, hidden=hidden, samples=np.concatenate(samples))


def _fronts(front: Shard, inputs: Sequence[Ids]) -> list[F32Array]:
    found: list[F32Array] = []
    for first in range(0, len(inputs), INPUTS_PER_BATCH):
        chunk = inputs[first : first + INPUTS_PER_BATCH]
        found += _run(front, [ShardInput(session=place, tokens=ids) for place, ids in enumerate(chunk)])
    return found


def _run(shard: Shard, inputs: Sequence[ShardInput]) -> list[F32Array]:
    """Each input in a session of its own, all of them as one batch: [n, d], or [n, V] from the back."""
    for item in inputs:
        shard.open(item.session)
    try:
        return shard.forward(inputs, keep="all")
    finally:
        for item in inputs:
            shard.close(item.session)
