"""Reads which tensors a model folder's safetensors files hold, from their headers alone (no torch, no weights).

A safetensors file is an 8-byte little-endian header length, a JSON header {name: {dtype, shape, data_offsets}} and
the data; offsets count from the end of the header. Large models come as several files with an index.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from testbed.core.errors import ModelError
from testbed.models.family import Family

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".gguf"})
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit: a larger claim is a corrupt file


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or a ModelError naming the file and the place of the fault."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"no {path.name} in the model folder", file=path.parent) from None
    except json.JSONDecodeError as error:
        raise ModelError(f"broken JSON at line {error.lineno}, column {error.colno}: {error.msg}", file=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot be read: {error}", file=path) from None
    if not isinstance(value, dict):
        raise ModelError("not a JSON object", file=path, value=type(value).__name__)
    return value


def tensor_files(folder: Path) -> dict[str, Path]:
    """Every tensor name of the checkpoint with the file that holds it; all headers checked.

    Raises ModelError where no safetensors file exists, a header is corrupt, a file is truncated, or the index names
    a file or a tensor that is not there.
    """
    index_path = folder / INDEX_NAME
    if not index_path.is_file():
        return dict.fromkeys(read_header(_single_file(folder)), _single_file(folder))
    weight_map = read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError("index without a weight_map", file=index_path)
    files = {name: folder / str(part) for name, part in weight_map.items()}
    for part in sorted(set(files.values())):
        if not part.is_file():
            raise ModelError("index names a file that is missing", file=index_path, value=part.name)
        _check_index(index_path, part, {name for name, path in files.items() if path == part})
    return files


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """The header of one safetensors file: {tensor name: {dtype, shape, data_offsets}}, consistent with its size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, _MAX_HEADER_BYTES):
            raise ModelError("truncated or corrupt safetensors file: the header is longer than the file", file=path)
        raw = file.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        data_end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise ModelError("corrupt safetensors header", file=path) from None
    missing = _LENGTH_BYTES + length + data_end - size
    if missing > 0:
        raise ModelError(f"truncated safetensors file: {missing} bytes are missing", file=path)
    return dict(header)


def canonical_names(names: Iterable[str], family: Family) -> dict[str, str]:
    """{name in the whole causal LM: name in the file}; some checkpoints leave out the base model's prefix."""
    listed = list(names)
    if any(name.startswith(f"{family.decoder}.") for name in listed):
        return {name: name for name in listed}
    base = family.decoder.split(".", 1)[0]
    return {name if name in {family.head, "lm_head.weight"} else f"{base}.{name}": name for name in listed}


def check_complete(folder: Path, names: Mapping[str, Path], family: Family, num_layers: int, tied: bool) -> None:
    """ModelError where a decoder layer, the token table or an untied LM head is not in the checkpoint."""
    stack, known = f"{family.decoder}.{family.layers}.", canonical_names(names, family)
    found = {name.removeprefix(stack).split(".", 1)[0] for name in known if name.startswith(stack)}
    absent = [f"{stack}{layer}.*" for layer in range(num_layers) if str(layer) not in found]
    table = f"{family.decoder}.{family.token_table}.weight"
    absent += [] if table in known else [table]
    absent += [] if tied or {family.head, "lm_head.weight"} & known.keys() else [family.head]
    if absent:
        raise ModelError("tensor missing from the checkpoint", file=folder, value=absent[0])


def _single_file(folder: Path) -> Path:
    path = folder / SINGLE_NAME
    if path.is_file():
        return path
    found = sorted(item.name for item in folder.iterdir() if item.suffix in WEIGHT_SUFFIXES)
    raise ModelError(
        "no safetensors weights in the model folder",
        file=folder,
        value=found or None,
        allowed=[SINGLE_NAME, INDEX_NAME],
    )


def _check_index(index_path: Path, part: Path, names: set[str]) -> None:
    absent = sorted(names - read_header(part).keys())
    if absent:
        raise ModelError(f"index names a tensor that {part.name} does not hold", file=index_path, value=absent[0])
