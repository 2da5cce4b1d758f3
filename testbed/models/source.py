"""From what a user writes as a model's name to a folder, a config and a shape; nothing of the weights is loaded.

A name is, in this order: ``pebble`` (the shipped reference model), a well-known shape (``llama-2-7b`` ...: sizes only),
a local folder (sizes only where it has a config.json and no weights), a Hugging Face id ``org/name`` (local cache
first, then a download).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from testbed.core.errors import ModelError, nearest_name
from testbed.models.checkpoint import INDEX_NAME, WEIGHT_SUFFIXES, check_complete, read_json, tensor_files
from testbed.models.families import FAMILIES, shape_of
from testbed.models.known_shapes import KNOWN_CONFIGS
from testbed.models.shape import ModelShape

PEBBLE = "pebble"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ("*.json", "*.safetensors", "tokenizer.model")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """One model as found: its config and shape, and the folder of its weights where it has any.

    ``tokenizer_file`` is a tokenizer.json or a SentencePiece tokenizer.model, or None. ``stop_token_ids`` end a
    generation (from generation_config.json, else config.json); empty where the model names none.
    """

    name: str
    folder: Path | None
    config: Mapping[str, Any]
    shape: ModelShape
    has_weights: bool
    tokenizer_file: Path | None
    stop_token_ids: tuple[int, ...]

    def weights_folder(self) -> Path:
        """The folder of the weights, or a ModelError for a model known by its shape only."""
        if self.folder is None or not self.has_weights:
            raise ModelError(
                f"model {self.name} is known by its shape only and has no weights",
                allowed="modelled device groups, or a model folder or Hugging Face id for real ones",
            )
        return self.folder


def resolve(name: str, *, base: Path | None = None) -> ModelSource:
    """The model a name stands for; relative folders are looked up under ``base``, then the working directory.

    Reads config and safetensors headers, so that a missing, broken or unsupported model is a ModelError here and not
    in the middle of a run. May download (an ``org/name`` that no local cache holds).
    """
    if name == PEBBLE:
        return from_folder(Path(str(files("testbed.models"))) / PEBBLE / "weights", name=name)
    if name in KNOWN_CONFIGS:
        return _from_known(name)
    folder = _find_folder(name, base)
    if folder is not None:
        return from_folder(folder, name=name)
    if _HUB_ID.fullmatch(name):
        return from_folder(_hub_folder(name), name=name)
    if _looks_like_path(name):
        raise ModelError("no such model folder", value=name)
    known = known_names()
    raise ModelError(
        "unknown model", value=name, allowed=[*known, "a folder", "org/name"], nearest=nearest_name(name, known)
    )


def known_names() -> list[str]:
    """The names that need no folder: the shipped model, then the shape-only ones."""
    return [PEBBLE, *sorted(KNOWN_CONFIGS)]


def from_folder(folder: Path, *, name: str | None = None) -> ModelSource:
    """A model in a folder as transformers saves it: config.json, safetensors, perhaps a tokenizer.

    With no file of weights in it the folder says the model's sizes only.
    """
    if not folder.is_dir():
        raise ModelError("no such model folder", value=str(folder))
    config_path = folder / "config.json"
    config = read_json(config_path)
    shape = shape_of(name or folder.name, config, file=str(config_path))
    has_weights = any(item.name == INDEX_NAME or item.suffix in WEIGHT_SUFFIXES for item in folder.iterdir())
    if has_weights:
        names = tensor_files(folder)
        check_complete(folder, names, FAMILIES[shape.family], shape.num_layers, shape.tied_embeddings)
    return ModelSource(
        name=name or folder.name,
        folder=folder.resolve(),
        config=config,
        shape=shape,
        has_weights=has_weights,
        tokenizer_file=next((folder / item for item in TOKENIZER_FILES if (folder / item).is_file()), None),
        stop_token_ids=_stop_token_ids(folder, config),
    )


def _from_known(name: str) -> ModelSource:
    config = KNOWN_CONFIGS[name]
    return ModelSource(
        name=name,
        folder=None,
        config=config,
        shape=shape_of(name, config),
        has_weights=False,
        tokenizer_file=None,
        stop_token_ids=(),
    )


def _find_folder(name: str, base: Path | None) -> Path | None:
    path = Path(name).expanduser()
    candidates = [path] if path.is_absolute() or base is None else [base / path, path]
    return next((item for item in candidates if item.is_dir()), None)


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "~")) or "/" in name or "\\" in name


def _stop_token_ids(folder: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    value = generation.get("eos_token_id", config.get("eos_token_id"))
    listed = value if isinstance(value, list) else [value]
    return tuple(item for item in listed if isinstance(item, int))


def _hub_folder(name: str) -> Path:
    """The local snapshot of a Hugging Face repository: from the cache, else downloaded."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - slow import, needed for hub ids only
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        cached = Path(snapshot_download(name, allow_patterns=list(_HUB_FILES), local_files_only=True))
        if any(cached.glob("*.safetensors")):
            return cached
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass  # not in the cache: the download below decides
    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"no such folder, not in the local Hugging Face cache, and it cannot be downloaded: {reason}", value=name
        ) from error
