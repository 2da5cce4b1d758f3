"""Reads a checkpoint's tensors, puts the outliers in and writes an ordinary checkpoint folder, only wider."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers.activations import ACT2FN

from testbed.core.errors import ModelError
from testbed.models.checkpoint import SINGLE_NAME, canonical_names, read_json, tensor_files
from testbed.models.families import FAMILIES
from testbed.models.outliers.recipe import Outliers, check, first_token
from testbed.models.outliers.weights import Activation, Tensors, Widening, make_widening, widened_layer
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource, from_folder

RECORD = "outliers.json"
LEAST_TOKENS = 64
_COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
)


def write_variant(
    source: ModelSource,
    outliers: Outliers,
    folder: Path,
    calibration: Sequence[Sequence[int]],
    tokenizer_file: Path | None = None,
) -> tuple[ModelSource, Widening]:
    """Write the variant into a folder; `calibration` is text as token ids, for the second moments at the cut.

    Raises ModelError for a family, width, cut or text that does not fit.
    """
    check(source, outliers)
    moments_dd = second_moments(source, outliers, calibration)
    tensors = _tensors(source)
    eps = float(source.config.get("rms_norm_eps", 1e-6))
    widening = make_widening(
        moments_dd,
        width=outliers.width,
        massive=outliers.massive,
        constant=outliers.constant,
        eps=eps,
        seed=outliers.seed,
    )
    changed = _changed(source, outliers, tensors, widening)
    folder.mkdir(parents=True, exist_ok=True)
    ready = {name: tensor.to(torch.float32).contiguous() for name, tensor in changed.items()}
    save_file(ready, folder / SINGLE_NAME, metadata={"format": "pt"})
    _write_json(folder / "config.json", _config(source, widening))
    _copy_beside(source, folder, tokenizer_file)
    _write_json(folder / RECORD, _record(source, outliers, widening))
    return from_folder(folder), widening


def second_moments(source: ModelSource, outliers: Outliers, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """E[x x^T] of the hidden states that cross the cut, in float64; sequences' first tokens are left out."""
    shard = Shard(source, start=0, stop=outliers.cut)
    total_dd = torch.zeros(source.shape.hidden_size, source.shape.hidden_size, dtype=torch.float64)
    num_tokens = 0
    for session, tokens in enumerate(rows):
        shard.open(session)
        (hidden_ND,) = shard.forward([ShardInput(session=session, tokens=tokens)], batched=False)
        shard.close(session)
        later_Nd = torch.from_numpy(hidden_ND[1:]).double()
        total_dd += later_Nd.T @ later_Nd
        num_tokens += len(later_Nd)
    if num_tokens < LEAST_TOKENS:
        least = f"at least {LEAST_TOKENS} tokens after the first of each text"
        raise ModelError("the calibration text is too short", value=num_tokens, allowed=least)
    if not torch.isfinite(total_dd).all():
        raise ModelError("hidden states at the cut are not finite", path="cut", value=outliers.cut)
    return total_dd / num_tokens


def note_proof(folder: Path, proof: Mapping[str, Any]) -> None:
    """Add what was measured to the record beside the weights."""
    record = read_json(folder / RECORD)
    _write_json(folder / RECORD, {**record, "proof": proof})


def _copy_beside(source: ModelSource, folder: Path, tokenizer_file: Path | None) -> None:
    """What stays as it is: the tokenizer, and how the model generates."""
    for name in _COPIED:
        if source.folder is not None and (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, folder / name)
    if tokenizer_file is not None and tokenizer_file.is_file():
        shutil.copyfile(tokenizer_file, folder / f"tokenizer{tokenizer_file.suffix}")


def _tensors(source: ModelSource) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors in float64 by their names in the whole model."""
    files = tensor_files(source.weights_folder())
    by_file: dict[Path, list[tuple[str, str]]] = defaultdict(list)
    for name, stored in canonical_names(files, FAMILIES[source.shape.family]).items():
        by_file[files[stored]].append((name, stored))
    found: dict[str, torch.Tensor] = {}
    for path, names in sorted(by_file.items()):
        try:
            with safe_open(str(path), framework="pt") as file:
                found |= {name: file.get_tensor(stored).double() for name, stored in names}
        except (SafetensorError, OSError) as error:
            raise ModelError(f"cannot read weights: {error}", file=path) from error
    broken = next((name for name, tensor in found.items() if not torch.isfinite(tensor).all()), None)
    if broken is not None:
        raise ModelError("weights hold NaN or infinite values", path=broken)
    return found


def _changed(source: ModelSource, outliers: Outliers, tensors: Tensors, widening: Widening) -> dict[str, torch.Tensor]:
    """All tensors of the variant, walking the first token's hidden state through the original on the way."""
    table_Vd = tensors["model.embed_tokens.weight"]
    token = first_token(source, outliers) if outliers.massive else 0
    changed = {"model.embed_tokens.weight": widening.hidden(table_Vd)}
    changed["model.embed_tokens.weight"][token, widening.massive_channels] = widening.massive
    activation: Activation = ACT2FN[source.config.get("hidden_act", "silu")]
    first_d = table_Vd[token]
    for number in range(source.shape.num_layers):
        prefix = f"model.layers.{number}."
        layer = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        new, first_d = widened_layer(layer, widening, first_d, activation=activation, head_dim=source.shape.head_dim)
        changed |= {prefix + name: tensor for name, tensor in new.items()}
    head_Vd = table_Vd if source.shape.tied_embeddings else tensors["lm_head.weight"]
    changed["lm_head.weight"] = widening.reader(head_Vd, tensors["model.norm.weight"], first_d)
    changed["model.norm.weight"] = widening.norm_weight()
    return changed


def _config(source: ModelSource, widening: Widening) -> dict[str, Any]:
    return {
        **source.config,
        "hidden_size": widening.width,
        "head_dim": source.shape.head_dim,
        "rms_norm_eps": widening.new_eps,
        "tie_word_embeddings": False,
        "dtype": "float32",
    }


def _record(source: ModelSource, outliers: Outliers, widening: Widening) -> dict[str, Any]:
    """What was done, beside the weights: read by people, and by nothing else."""
    return {
        "made_from": source.name,
        "hidden_size": [source.shape.hidden_size, widening.width],
        "cut_of_the_second_moments": outliers.cut,
        "outlier_channel": widening.outlier_channel,
        "massive": dict(zip(map(str, widening.massive_channels.tolist()), outliers.massive, strict=True)),
        "massive_token": first_token(source, outliers) if outliers.massive else None,
        "constant": dict(zip(map(str, widening.constant_channels.tolist()), outliers.constant, strict=True)),
        "rms_norm_eps": [widening.eps, widening.new_eps],
        "seed": outliers.seed,
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
