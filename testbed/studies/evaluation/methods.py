"""The rows of the comparison: a preset names how weights are stored and what encodes at the cut.

A row's parts are written as a scenario writes them, its `weights:` block and its codec, so whatever a scenario can be
given can be a row. FP is the reference; OPSC's split precision is published, its bits here are our own choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from testbed.actors.weight_plan import check_weights
from testbed.actors.weights import layer_matrices
from testbed.core.errors import ScenarioError, nearest_name
from testbed.models.shape import ModelShape
from testbed.quantization.formats import GROUP_SIZES
from testbed.scenarios.codec_setting import read_setting, write_setting
from testbed.scenarios.problems import validate
from testbed.scenarios.weights import Weights

RAW = "raw-float32"
ALL = "all"
REFERENCE = "fp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One row: `weights` and `kv` are a scenario's blocks, {} for none.

    Weights without a group size get one that fits the model's rows.
    """

    name: str
    title: str
    weights: Mapping[str, Any]
    kv: Mapping[str, Any]
    codec: str = RAW


def _bits(method: str, front: int, back: int | None = None, **more: Any) -> Mapping[str, Any]:
    """A weights block; without `back` both sides have the front's bits."""
    return MappingProxyType(
        {"method": method, "front_bits": front, "back_bits": front if back is None else back, **more}
    )


# What a model's sizes decide: groups that divide its rows, and as large a share of outlier channels as published.
FIT = "fit"
_OUTLIER_SHARE = 32  # of Llama-2-7B's 4,096 channels Atom keeps 128
_MAX_OUTLIERS = 128
# In a codec, "{tau}" is a threshold that calibration text sets (load.py): what is large depends on the model.

_NONE: Mapping[str, Any] = MappingProxyType({})
_OPSC = _bits("rtn", 4, 8)
_KV8: Mapping[str, Any] = MappingProxyType({"front_bits": 8, "back_bits": 8})
_KV4: Mapping[str, Any] = MappingProxyType({"front_bits": 4, "back_bits": 4})
_OMNIQUANT = _bits("omniquant", 4, group_size=None, front_activation_bits=4, back_activation_bits=4)
_ATOM = _bits(
    "atom",
    4,
    symmetric=True,
    outlier_channels=FIT,
    front_activation_bits=4,
    back_activation_bits=4,
    activation_group_size=FIT,
)


def _row(
    name: str, title: str, weights: Mapping[str, Any] = _NONE, codec: str = RAW, *, kv: Mapping[str, Any] = _NONE
) -> Method:
    return Method(name=name, title=title, weights=weights, codec=codec, kv=kv)


def _opsc(name: str, title: str, codec: str = RAW) -> Method:
    """One-point split compression with something at the cut."""
    return _row(name, title, _OPSC, codec, kv=_KV8)


_ROWS = (
    _row("fp", "full precision"),
    _row("smoothquant", "SmoothQuant W8A8", _bits("smoothquant", 8, group_size=None)),
    _row("omniquant", "OmniQuant W4A4", _OMNIQUANT),
    _row("atom", "Atom W4A4", _ATOM),
    _row("atom-kv4", "Atom W4A4 KV4", _ATOM, kv=_KV4),
    _row("gptq", "GPTQ W4", _bits("gptq", 4)),
    _row("rtn", "RTN W4", _bits("rtn", 4)),
    _row("fp8", "FP8", _bits("fp8", 8, group_size=None)),
    _opsc("opsc", "OPSC W4/W8 KV8"),
    _opsc("opsc-int8", "OPSC + uniform INT8, symmetric", "int8"),
    _opsc("opsc-int4", "OPSC + uniform INT4, symmetric", "int4"),
    _opsc("opsc-int4-asymmetric", "OPSC + uniform INT4, asymmetric", "int4(symmetric=false)"),
    _opsc("opsc-hadamard-int4", "OPSC + Hadamard + uniform INT4", "int4(rotate=hadamard)"),
    _opsc("opsc-centre-int4", "OPSC + centre + uniform INT4", "int4(centre=true)"),
    _opsc("opsc-ts-int4", "OPSC + TS + uniform INT4", "ts(tau={tau})"),
    _opsc("opsc-tabq", "OPSC + TAB-Q", "tabq"),
    _opsc("opsc-ts-tabq", "OPSC + TS + TAB-Q, packed", "ts-tabq(tau={tau})"),
    _opsc("opsc-ts-tabq-zstd", "OPSC + TS + TAB-Q, zstd", "ts-tabq(tau={tau},entropy=zstd)"),
    _opsc("opsc-ts-tabq-rans", "OPSC + TS + TAB-Q, rANS", "ts-tabq(tau={tau},entropy=rans)"),
)
METHODS: Mapping[str, Method] = MappingProxyType({row.name: row for row in _ROWS})


def chosen_methods(
    names: Sequence[str],
    *,
    weights: Mapping[str, Any] | None = None,
    kv: Mapping[str, Any] | None = None,
    codec: str | None = None,
) -> list[Method]:
    """The rows that the names stand for, in order and each once; the other arguments replace those parts of all.

    Raises ScenarioError for a name that is none and for a codec that is none.
    """
    listed = [known for name in names for known in (METHODS if name == ALL else [name])]
    unknown = next((name for name in listed if name not in METHODS), None)
    if unknown is not None:
        known = [ALL, *METHODS]
        raise ScenarioError("unknown method", value=unknown, allowed=known, nearest=nearest_name(unknown, known))
    return [_changed(METHODS[name], weights, kv, codec) for name in dict.fromkeys(listed)]


def _changed(
    method: Method, weights: Mapping[str, Any] | None, kv: Mapping[str, Any] | None, codec: str | None
) -> Method:
    """The row with other parts; its name and title then say which."""
    parts: dict[str, Any] = {}
    if weights is not None:
        parts["weights"] = weights
    if kv is not None:
        parts["kv"] = kv
    told = [f"{part}({','.join(f'{key}={value}' for key, value in block.items())})" for part, block in parts.items()]
    if codec is not None:
        parts["codec"] = write_setting(read_setting(codec))
        told.append(parts["codec"])
    name, title = ("+".join([method.name, *told]), ", ".join([method.title, *told]))
    return replace(method, name=name, title=title, **parts)


def weights_of(method: Method, shape: ModelShape, texts: Sequence[str]) -> Weights | None:
    """The row's weights block for a model: groups that fit its rows, and calibration texts where some are needed.

    None where nothing is quantised. Raises ScenarioError for a block that no scenario could have.
    """
    if not method.weights:
        return None
    group = fitting_group(shape)
    fitting = {"group_size": group, "activation_group_size": group, "outlier_channels": fitting_outliers(shape)}
    given = {"group_size": FIT, **method.weights}
    data = {key: fitting[key] if value == FIT else value for key, value in given.items()}
    if validate(Weights, data).needs_text:
        data.setdefault("calibration", list(texts))
    block = validate(Weights, data)
    check_weights(block, shape)
    return block


def fitting_group(shape: ModelShape) -> int | None:
    """The largest group that divides every row of the layers' matrices, else the smallest that is not longer than one.

    None, one group a row, where some row is shorter than that.
    """
    columns = {columns for _, columns in layer_matrices(shape)}
    dividing = [size for size in GROUP_SIZES if all(number % size == 0 for number in columns)]
    if dividing:
        return max(dividing)
    return min(GROUP_SIZES) if min(GROUP_SIZES) <= min(columns) else None


def fitting_outliers(shape: ModelShape) -> int:
    """As many outlier channels for the narrowest matrix as the published share of its columns."""
    narrowest = min(columns for _, columns in layer_matrices(shape))
    return max(1, min(narrowest // _OUTLIER_SHARE, _MAX_OUTLIERS))
