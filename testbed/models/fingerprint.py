"""A short name for a model's weights, found without reading them all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from testbed.models.checkpoint import read_header, tensor_files
from testbed.models.source import ModelSource

_PIECES, _PIECE_BYTES = 16, 256  # read of every tensor, evenly spread
_LENGTH_BYTES = 8  # of a safetensors file's header length


def weights_fingerprint(source: ModelSource) -> str:
    """Sixteen hex digits of the SHA-256 of every tensor's name, type, shape and some of its bytes.

    The same for a copy elsewhere or in other files; another for other weights, since a model that was trained further
    differs nearly everywhere. Raises ModelError for a model without weights.
    """
    digest = hashlib.sha256()
    for name, path in sorted(tensor_files(source.weights_folder()).items()):
        entry = read_header(path)[name]
        digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
        for piece in _pieces(path, *entry["data_offsets"]):
            digest.update(piece)
    return digest.hexdigest()[:16]


def _pieces(path: Path, start: int, stop: int) -> list[bytes]:
    """Some of a tensor's bytes, which lie from `start` to `stop` behind the file's header."""
    size = stop - start
    places = sorted({size * piece // _PIECES for piece in range(_PIECES)}) if size else []
    with path.open("rb") as file:
        data = _LENGTH_BYTES + int.from_bytes(file.read(_LENGTH_BYTES), "little") + start
        found = []
        for place in places:
            file.seek(data + place)
            found.append(file.read(min(_PIECE_BYTES, size - place)))
    return found
