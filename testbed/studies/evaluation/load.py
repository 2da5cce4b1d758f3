"""Builds the split model that a row of the comparison describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from testbed.actors.weight_plan import calibration_sequences, weight_config
from testbed.codecs.agreed import Agreed, agree, needs_agreement
from testbed.codecs.named import make_codec
from testbed.codecs.sparse import Threshold
from testbed.core.errors import ModelError
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource
from testbed.models.tokenizer import Tokenizer
from testbed.quantization.apply import needs_blocks, needs_text, quantise_module
from testbed.quantization.blocks import collect_blocks
from testbed.quantization.calibrate import collect
from testbed.quantization.saved import load_quantised
from testbed.scenarios.kv import KV
from testbed.scenarios.weights import Weights
from testbed.studies.evaluation.split_model import F32Array, SplitModel

TAU = "{tau}"  # in a codec's setting: to be calibrated
MASSIVE = 6.0
ABOVE_PER_ROW = 2.0
OFF = 3e38  # nothing finite is as large


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A model and where it is cut; `dtype` is what the shards compute in and what is not quantised is stored in."""

    source: ModelSource
    tokenizer: Tokenizer
    split: int
    dtype: str = "float32"
    device: str = "cpu"

    def check(self) -> None:
        """Raise ModelError unless both sides have layers."""
        last = self.source.shape.num_layers - 1
        if not 1 <= self.split <= last:
            raise ModelError("nothing crosses this cut", path="split", value=self.split, allowed=f"1 to {last}")

    def shard(self, start: int, stop: int, *, kv_bits: int | None = None) -> Shard:
        return Shard(self.source, start=start, stop=stop, dtype=self.dtype, device=self.device, kv_bits=kv_bits)


def load_split(
    cut: Cut, weights: Weights | None, codec: str, texts: Sequence[str], *, kv: KV | None = None
) -> SplitModel:
    """Front and back stored as `weights` and `kv` say, joined by a codec that is calibrated on `texts` where need be.

    Raises ScenarioError for settings that don't fit the model.
    """
    whole = cut.source.shape.num_layers
    front = cut.shard(0, cut.split, kv_bits=None if kv is None else kv.front_bits)
    back = cut.shard(cut.split, whole, kv_bits=None if kv is None else kv.back_bits)
    if weights is not None:
        _pack(cut, (front, back), weights)
    codec, agreed = _calibrated(codec, lambda: np.concatenate(_read(front, _sequences(cut, texts))))
    return SplitModel(front, back, make_codec(codec, agreed), codec)


def _pack(cut: Cut, sides: Sequence[Shard], weights: Weights) -> None:
    """Store weights as the block says, in place; methods that read text are fed by the unsplit model."""
    if weights.saved is not None:
        for shard in sides:
            load_quantised(shard.module, Path(weights.saved), first_layer=shard.start)
        return
    config = replace(weight_config(weights), split=cut.split)
    statistics, blocks = None, None
    if weights.needs_text:
        whole, sequences = cut.shard(0, cut.source.shape.num_layers), _sequences(cut, weights.calibration)
        statistics = collect(whole.module, lambda: _read(whole, sequences)) if needs_text(config) else None
        blocks = collect_blocks(whole.module, lambda: _read(whole, sequences)) if needs_blocks(config) else None
    for shard in sides:
        quantise_module(shard.module, config, first_layer=shard.start, statistics=statistics, blocks=blocks)


def _calibrated(codec: str, sample: Callable[[], F32Array]) -> tuple[str, Agreed | None]:
    """The codec's setting with its threshold, and what its sessions agree on, from hidden states at the cut."""
    if TAU not in codec and not needs_agreement(codec):
        return codec, None
    hidden_ND = sample()
    codec = codec.replace(TAU, repr(session_tau(hidden_ND)))
    return codec, agree(codec, hidden_ND)


def session_tau(hidden_ND: F32Array) -> float:
    """A threshold for all messages of a session, from samples [our own design].

    OFF where no row has a value above MASSIVE times its root mean square: splitting off would only cost. Else such
    that ABOVE_PER_ROW values of a row lie above on average.
    """
    rms_N = np.sqrt(np.mean(hidden_ND.astype(np.float64) ** 2, axis=1))
    if not (np.abs(hidden_ND).max(axis=1) > MASSIVE * rms_N).any():
        return OFF
    return float(Threshold(per_row=ABOVE_PER_ROW).of(hidden_ND))


def _sequences(cut: Cut, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    return calibration_sequences([cut.tokenizer.encode(text) for text in texts], cut.source.shape.max_positions)


def _read(shard: Shard, sequences: Sequence[Sequence[int]]) -> list[F32Array]:
    """What the shard makes of every sequence, each alone."""
    found = []
    for tokens in sequences:
        shard.open(0)
        found += shard.forward([ShardInput(session=0, tokens=tokens)])
        shard.close(0)
    return found
