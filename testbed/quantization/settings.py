"""What a folder of packed weights says of itself in `quantization.json`, read without a tensor. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from testbed.core.errors import ModelError
from testbed.quantization.config import Learning, WeightConfig
from testbed.quantization.formats import ActivationFormat, WeightFormat

VERSION = 2
NAME = "quantization.json"
_WEIGHTS = ("front", "back", "embedding", "head")
_INPUTS = ("front_inputs", "back_inputs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The model that weights were packed from: its name, its weights' fingerprint, and the dtype they were read in."""

    model: str
    fingerprint: str
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A packed matrix [rows, columns] and how it is stored."""

    rows: int
    columns: int
    format: WeightFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a folder's weights were made, of what, and its matrices by their names in the whole model."""

    config: WeightConfig
    matrices: Mapping[str, Matrix]
    origin: Origin | None = field(default=None)  # None: nobody said


def write_settings(folder: Path, settings: Settings) -> None:
    """Write the file into a folder that is there."""
    data = {"version": VERSION, **asdict(settings)}
    (folder / NAME).write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_settings(folder: Path) -> Settings:
    """A folder's settings; ModelError where there are none that can be read."""
    path = folder / NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the settings of packed weights: {error}", file=path) from None
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ModelError("packed weights of another version", file=path, allowed=f"version {VERSION}")
    try:
        return Settings(
            config=_config(data["config"]),
            matrices={key: _matrix(entry) for key, entry in data["matrices"].items()},
            origin=data["origin"] and Origin(**data["origin"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"broken settings of packed weights: {error}", file=path) from None


def first_difference(saved: WeightConfig, wanted: WeightConfig) -> tuple[str, object, object] | None:
    """A setting in which two configurations differ, and both values; the change point does not count."""
    ours, others = _flat(asdict(saved)), _flat(asdict(wanted))
    for key in sorted((ours | others).keys() - {"split"}):
        if ours.get(key) != others.get(key):
            return key, ours.get(key), others.get(key)
    return None


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested mappings as one, keys joined by dots."""
    found: dict[str, object] = {}
    for key, value in data.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def _matrix(entry: Mapping[str, Any]) -> Matrix:
    return Matrix(rows=entry["rows"], columns=entry["columns"], format=WeightFormat(**entry["format"]))


def _config(data: Mapping[str, Any]) -> WeightConfig:
    unknown = data.keys() - {item.name for item in fields(WeightConfig)}
    if unknown:
        raise KeyError(min(unknown))
    read: dict[str, Any] = {key: data[key] and WeightFormat(**data[key]) for key in _WEIGHTS}
    read |= {key: data[key] and ActivationFormat(**data[key]) for key in _INPUTS}
    return WeightConfig(**{**data, **read, "learning": Learning(**data["learning"])})
