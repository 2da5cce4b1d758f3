"""Packs a model's weights once and keeps them: a folder that scenarios name under `weights.saved`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from testbed.actors.weight_plan import (
    CORPUS_TEXTS,
    calibration_sequences,
    calibration_tokens,
    check_weights,
    weight_config,
)
from testbed.core.errors import ModelError, ScenarioError
from testbed.core.units import format_si
from testbed.models.fingerprint import weights_fingerprint
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource, resolve
from testbed.models.texts import read_texts
from testbed.models.threads import one_thread
from testbed.models.tokenizer import load_tokenizer
from testbed.quantization.apply import needs_blocks, needs_text, quantise_module
from testbed.quantization.blocks import collect_blocks
from testbed.quantization.calibrate import collect
from testbed.quantization.saved import save_quantised
from testbed.quantization.settings import Origin
from testbed.scenarios.problems import validate
from testbed.scenarios.weights import Weights
from testbed.scenarios.yaml_file import yaml_text

Observe = Callable[[str, int, int], None]  # what is being done, how much of it is, and of how much


def _unseen(doing: str, num_done: int, num_all: int) -> None:
    """Nobody looks."""


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
    """What became of it: bytes of the whole model's weights in memory before and after, tokens of text read."""

    folder: Path
    weights: Weights  # as a scenario names the result
    num_matrices: int
    plain_bytes: int
    packed_bytes: int
    num_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        counts = {name: getattr(self, name) for name in ("num_matrices", "plain_bytes", "packed_bytes", "num_tokens")}
        return {"folder": str(self.folder), **counts, "weights": self.weights.model_dump(exclude_defaults=True)}

    def told(self) -> Iterator[str]:
        """The same for people, with the lines of a scenario that uses it."""
        yield f"matrices packed: {self.num_matrices}"
        yield f"weights:         {format_si(self.plain_bytes, 'B')} before, {format_si(self.packed_bytes, 'B')} now"
        yield f"text read:       {self.num_tokens} tokens"
        yield f"folder:          {self.folder}"
        yield "in a scenario:"
        yield yaml_text({"weights": self.as_dict()["weights"]}).rstrip()


def prepare(
    model: str,
    settings: Mapping[str, Any],
    *,
    split: int,
    calibration: Path | None = None,
    dtype: str = "float32",
    tokenizer: str | None = None,
) -> Packing:
    """The packing that is asked for; `settings` are keys of a scenario's weights block, `calibration` a file of texts.

    Raises ScenarioError for a model, a split or settings that can't be had.
    """
    source = resolve(model)
    texts = [] if calibration is None else list(read_texts(calibration))
    if settings.get("saved") is not None:
        raise ScenarioError("this makes such a folder", path="saved", value=settings["saved"], allowed="null")
    weights = validate(Weights, {**settings, "calibration": texts})
    if texts and not weights.needs_text:
        raise ScenarioError(f"{weights.method} reads no text", path="--calibration", value=str(calibration))
    source.weights_folder()
    source.shape.check_split(split)
    check_weights(weights, source.shape)
    config = weight_config(weights)
    if not any((config.front, config.back, config.embedding, config.head)):
        raise ScenarioError("nothing is to be packed", allowed="--front-bits, --back-bits, or both")
    sequences = _sequences(source, weights, tokenizer) if weights.needs_text else ()
    return Packing(source=source, weights=weights, split=split, calibration=sequences, dtype=dtype)


def _sequences(source: ModelSource, weights: Weights, tokenizer: str | None) -> tuple[tuple[int, ...], ...]:
    found = calibration_tokens(weights.calibration, load_tokenizer(source, tokenizer), num_shipped=CORPUS_TEXTS)
    return calibration_sequences(found, source.shape.max_positions)


def quantise_model(packing: Packing, folder: Path, *, observe: Observe = _unseen) -> Packed:
    """Pack the whole model and write it to a folder; `observe` is told of texts read and of matrices packed.

    Raises ModelError for a folder that holds something, and as `quantise_module` does.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError("something is there already", path="--output", value=str(folder), allowed="an empty folder")
    with one_thread():
        return _quantise(packing, folder, observe)


def _quantise(packing: Packing, folder: Path, observe: Observe) -> Packed:
    source, config = packing.source, replace(weight_config(packing.weights), split=packing.split)
    shard = Shard(source, start=0, stop=source.shape.num_layers, dtype=packing.dtype)
    plain_bytes = shard.resident_bytes()
    read = partial(_read, shard, packing, observe)
    statistics = collect(shard.module, read) if needs_text(config) else None
    blocks = collect_blocks(shard.module, read) if needs_blocks(config) else None
    packing_matrices = partial(observe, "packing matrices")
    quantise_module(shard.module, config, statistics=statistics, blocks=blocks, progress=packing_matrices)
    packed_bytes = shard.resident_bytes()
    origin = Origin(model=source.name, fingerprint=weights_fingerprint(source), dtype=packing.dtype)
    num_matrices = save_quantised(shard.module, folder, config, origin=origin)
    return Packed(
        folder=folder,
        weights=packing.weights.model_copy(update={"calibration": [], "saved": str(folder)}),
        num_matrices=num_matrices,
        plain_bytes=plain_bytes,
        packed_bytes=packed_bytes,
        num_tokens=sum(map(len, packing.calibration)),
    )


def _read(shard: Shard, packing: Packing, observe: Observe) -> None:
    """The calibration text, sequence by sequence, through the full-precision model."""
    for session, tokens in enumerate(packing.calibration):
        shard.open(session)
        shard.forward([ShardInput(session=session, tokens=tokens)], batched=False)
        shard.close(session)
        observe("reading texts", session + 1, len(packing.calibration))
