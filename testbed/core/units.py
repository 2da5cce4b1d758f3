"""Quantities as users write them ("20 Mbit/s", "15 ms", "8 GiB") and as the simulation keeps them.

Inside, a time is an int in nanoseconds, a size an int in bytes, a rate a float in bit/s, byte/s or FLOP/s.
A number without a unit is refused wherever a unit could be mistaken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from testbed.core.errors import ScenarioError, nearest_name

NS_PER_S = 1_000_000_000
BITS_PER_BYTE = 8

_SI = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def _prefixed(unit: str, prefixes: Mapping[str, float], scale: float = 1.0) -> dict[str, float]:
    return {f"{prefix}{unit}": factor * scale for prefix, factor in prefixes.items()}


_TIME_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

# quantity -> unit -> factor to the base unit named in the quantity's key
UNITS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "time": _TIME_S,
        "size": {**_prefixed("B", _SI), **_prefixed("B", _BINARY)},
        "bitrate": {
            **_prefixed("bit/s", _SI),
            **_prefixed("bps", _SI),
            **_prefixed("B/s", _SI, BITS_PER_BYTE),
        },
        "bandwidth": {**_prefixed("B/s", _SI), **_prefixed("B/s", _BINARY)},
        "compute": {**_prefixed("FLOP/s", _SI), **_prefixed("FLOPS", _SI)},
        "frequency": {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600, "/d": 1 / 86400},
        "power": {"mW": 1e-3, "W": 1.0, "kW": 1e3},
        "energy": {"uJ": 1e-6, "µJ": 1e-6, "mJ": 1e-3, "J": 1.0, "kJ": 1e3, "Wh": 3600.0},
        "ratio": {"%": 1e-2, "": 1.0},
    }
)

_NUMBER = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*")


def parse_quantity(value: object, quantity: str) -> float:
    """The value in the quantity's base unit (s, B, bit/s, B/s, FLOP/s, 1/s, W, J, 1).

    Raises ScenarioError when the text is no number with one of the quantity's units.
    """
    units = UNITS[quantity]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ScenarioError(f"expected a {quantity}", value=value, allowed=_examples(quantity))
    if isinstance(value, (int, float)):
        if value == 0 or quantity == "ratio":
            return float(value)
        raise ScenarioError(f"a {quantity} needs a unit", value=value, allowed=_examples(quantity))
    match = _NUMBER.fullmatch(value)
    if match is None:
        raise ScenarioError(f"not a {quantity}", value=value, allowed=_examples(quantity))
    number, unit = float(match[1].replace("_", "")), match[2]
    if unit not in units:
        if number == 0 and unit == "":
            return 0.0
        problem = f"unknown unit {unit!r} for a {quantity}" if unit else f"a {quantity} needs a unit"
        raise ScenarioError(problem, value=value, allowed=_examples(quantity), nearest=nearest_name(unit, units))
    return number * units[unit]


def _examples(quantity: str) -> str:
    return "a number with one of " + ", ".join(unit or "(no unit)" for unit in UNITS[quantity])


def seconds_to_ns(seconds: float) -> int:
    """Whole nanoseconds, rounded to the nearest."""
    return round(seconds * NS_PER_S)


def ns_to_seconds(time_ns: int) -> float:
    return time_ns / NS_PER_S


def serialisation_ns(size_bytes: int, rate_bps: int) -> int:
    """Time to clock `size_bytes` onto a link of `rate_bps`, rounded up so that no link is faster than its rate."""
    return -(-(size_bytes * BITS_PER_BYTE * NS_PER_S) // rate_bps)


def format_si(value: float, unit: str) -> str:
    """Three significant digits with an SI prefix: ``format_si(2.1e7, "bit/s") == "21.0 Mbit/s"``."""
    magnitude = abs(value)
    for prefix, factor in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if magnitude >= factor:
            return f"{_three_digits(value / factor)} {prefix}{unit}"
    return f"{_three_digits(value)} {unit}"


def format_seconds(seconds: float) -> str:
    """Three significant digits in the unit a person would choose: ``12.3 ms``, ``4.56 s``, ``2.5 min``."""
    magnitude = abs(seconds)
    if magnitude >= 120:  # noqa: PLR2004 - two minutes
        return f"{_three_digits(seconds / 60)} min"
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if magnitude >= factor:
            return f"{_three_digits(seconds / factor)} {unit}"
    return "0 s" if seconds == 0 else f"{_three_digits(seconds / 1e-9)} ns"


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    decimals = 2 if magnitude < 10 else 1 if magnitude < 100 else 0  # noqa: PLR2004
    return f"{value:.{decimals}f}"
