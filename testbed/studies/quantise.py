"""Packs a model's weights once and keeps them: a folder that scenarios name under `weights.saved`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from testbed.actors.weight_plan import calibration_sequences, calibration_tokens, check_weights, weight_config
from testbed.core.errors import ModelError
from testbed.models.fingerprint import weights_fingerprint
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource, resolve
from testbed.models.tokenizer import load_tokenizer
from testbed.quantization.apply import Progress, no_progress, quantise_module
from testbed.quantization.calibrate import Statistics, collect
from testbed.quantization.saved import save_quantised
from testbed.quantization.settings import Origin
from testbed.scenarios.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """What is packed how: front bits for the layers before `split`, back bits behind it."""

    source: ModelSource
    weights: Weights
    split: int
    calibration: tuple[tuple[int, ...], ...]  # token ids, empty where the method reads none
    dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What became of it: bytes of weights that the whole model takes in memory, before and after."""

    folder: Path
    plain_bytes: int
    packed_bytes: int


def prepare(
    model: str, weights: Weights, *, split: int, dtype: str = "float32", tokenizer: str | None = None
) -> Packing:
    """The packing that is asked for; ScenarioError for a model, a split or settings that can't be had."""
    source = resolve(model)
    source.weights_folder()
    source.shape.check_split(split)
    check_weights(weights, source.shape)
    tokens = calibration_tokens(weights, lambda: load_tokenizer(source, tokenizer))
    calibration = calibration_sequences(tokens, source.shape.max_positions) if tokens else ()
    return Packing(source=source, weights=weights, split=split, calibration=calibration, dtype=dtype)


def quantise_model(packing: Packing, folder: Path, *, progress: Progress = no_progress) -> Packed:
    """Pack the whole model and write it to a folder that is new or empty; `progress` counts matrices."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError("the folder is not empty", file=folder)
    source, config = packing.source, replace(weight_config(packing.weights), split=packing.split)
    shard = Shard(source, start=0, stop=source.shape.num_layers, dtype=packing.dtype)
    plain_bytes = shard.resident_bytes()
    statistics = _statistics(shard, packing.calibration) if packing.weights.needs_text else None
    quantise_module(shard.module, config, statistics=statistics, progress=progress)
    origin = Origin(model=source.name, fingerprint=weights_fingerprint(source), dtype=packing.dtype)
    save_quantised(shard.module, folder, config, origin=origin)
    return Packed(folder=folder, plain_bytes=plain_bytes, packed_bytes=shard.resident_bytes())


def _statistics(shard: Shard, sequences: Sequence[Sequence[int]]) -> Statistics:
    def read() -> None:
        for session, tokens in enumerate(sequences):
            shard.open(session)
            shard.forward([ShardInput(session=session, tokens=tokens)], batched=False)
            shard.close(session)

    return collect(shard.module, read)
