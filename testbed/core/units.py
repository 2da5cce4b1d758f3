"""Quantities as users write them ("20 Mbit/s", "15 ms", "8 GiB") and as the simulation keeps them.

Inside, a time is an int in nanoseconds, a size an int in bytes, a rate a float in bit/s, byte/s or FLOP/s.
A number without a unit is refused wherever a unit could be mistaken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

from testbed.core.errors import ScenarioError, nearest_name

NS_PER_S = 1_000_000_000
BITS_PER_BYTE = 8

# Factors are fractions: "20 Mbit/s" and "20000 kbit/s" are the same number, and a value that is written to a file and
# read back is the same to the last bit.
_SI = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def _prefixed(unit: str, prefixes: Mapping[str, int], scale: int = 1) -> dict[str, Fraction]:
    return {f"{prefix}{unit}": Fraction(factor * scale) for prefix, factor in prefixes.items()}


def _fractions(factors: Mapping[str, str | int]) -> dict[str, Fraction]:
    return {unit: Fraction(factor) for unit, factor in factors.items()}


# The micro sign and the Greek letter look alike; keyboards give either.
_TIME_S = _fractions(
    {
        "ns": "1e-9",
        "us": "1e-6",
        "\u00b5s": "1e-6",
        "\u03bcs": "1e-6",
        "ms": "1e-3",
        "s": 1,
        "min": 60,
        "h": 3600,
        "d": 86400,
    }
)

# quantity -> unit -> factor to the base unit named in the quantity's key
UNITS: Mapping[str, Mapping[str, Fraction]] = MappingProxyType(
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
        "frequency": _fractions({"/s": 1, "/min": "1/60", "/h": "1/3600", "/d": "1/86400"}),
        "power": _fractions({"mW": "1e-3", "W": 1, "kW": 1000}),
        "energy": _fractions(
            {"uJ": "1e-6", "\u00b5J": "1e-6", "\u03bcJ": "1e-6", "mJ": "1e-3", "J": 1, "kJ": 1000, "Wh": 3600}
        ),
        "ratio": _fractions({"%": "1/100", "": 1}),
        "distance": _fractions({"m": 1, "km": 1000}),
        "speed": _fractions({"m/s": 1, "km/h": "5/18"}),
        "spectrum": _prefixed("Hz", {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}),
        "decibels": _fractions({"dB": 1}),
        "level": _fractions({"dBm": 1}),
        "temperature": _fractions({"degC": 1, "\u00b0C": 1}),
        "thermal resistance": _fractions({"K/W": 1}),
        "heat capacity": _fractions({"J/K": 1, "kJ/K": 1000}),
    }
)

# What messages call a quantity, and how they say what is allowed.
NAMES: Mapping[str, str] = MappingProxyType(
    {quantity: quantity for quantity in UNITS}
    | {"bitrate": "bit rate", "compute": "compute rate", "frequency": "rate in time", "spectrum": "frequency"}
    | {"decibels": "ratio in decibels", "level": "power level"}
)
ALLOWED: Mapping[str, str] = MappingProxyType(
    {
        "time": "a number with ns, us, ms, s, min, h or d, such as 15 ms",
        "size": "a number with B, after k, M, G, T, P, Ki, Mi, Gi or Ti or alone, such as 8 GiB",
        "bitrate": "a number with bit/s, bps or B/s, after k, M, G, T or P or alone, such as 20 Mbit/s",
        "bandwidth": "a number with B/s, after k, M, G, T, P, Ki, Mi, Gi or Ti or alone, such as 9 GB/s",
        "compute": "a number with FLOP/s or FLOPS, after k, M, G, T or P or alone, such as 100 GFLOP/s",
        "frequency": "a number with /s, /min, /h or /d, such as 0.5 /s",
        "power": "a number with mW, W or kW, such as 3 W",
        "energy": "a number with uJ, mJ, J, kJ or Wh, such as 2 J",
        "ratio": "a number, alone or with %, such as 0.02 or 2 %",
        "distance": "a number with m or km, such as 80 km",
        "speed": "a number with m/s or km/h, such as 50 km/h",
        "spectrum": "a number with Hz, kHz, MHz or GHz, such as 20 MHz",
        "decibels": "a number with dB, such as 10 dB",
        "level": "a number with dBm, such as 23 dBm",
        "temperature": "a number with degC or \u00b0C, such as 25 degC",
        "thermal resistance": "a number with K/W, such as 5 K/W",
        "heat capacity": "a number with J/K or kJ/K, such as 60 J/K",
    }
)

_MAX_EXPONENT_DIGITS = 3  # more would only make a number too large to compute with
_NUMBER = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?(\d+))?)\s*(.*?)\s*", re.ASCII)


def parse_quantity(value: object, quantity: str) -> float:
    """The value in the quantity's base unit (s, B, bit/s, B/s, FLOP/s, 1/s, W, J, 1, m, m/s, Hz, ...), rounded once.

    Raises ScenarioError when the text is no number with one of the quantity's units.
    """
    try:
        return float(parse_exactly(value, quantity))
    except OverflowError:
        raise ScenarioError(f"{NAMES[quantity]} too large", value=value) from None


def parse_exactly(value: object, quantity: str) -> Fraction:
    """As `parse_quantity`, without rounding."""
    name, allowed = NAMES[quantity], ALLOWED[quantity]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ScenarioError(f"a {name} is expected", value=value, allowed=allowed)
    if isinstance(value, (int, float)):
        if not math.isfinite(value):
            raise ScenarioError(f"not a {name}", value=value, allowed=allowed)
        if value == 0 or quantity == "ratio":
            return Fraction(value)
        raise ScenarioError(f"a {name} needs a unit", value=value, allowed=allowed)
    match = _NUMBER.fullmatch(value)
    if match is None or len(match[2] or "") > _MAX_EXPONENT_DIGITS:
        raise ScenarioError(f"not a {name}", value=value, allowed=allowed)
    return _with_unit(Fraction(match[1].replace("_", "")), match[3], value, quantity)


def _with_unit(number: Fraction, unit: str, text: str, quantity: str) -> Fraction:
    units = UNITS[quantity]
    if unit in units:
        return number * units[unit]
    if number == 0 and unit == "":
        return number
    problem = f"unknown unit {unit!r} for a {NAMES[quantity]}" if unit else f"a {NAMES[quantity]} needs a unit"
    raise ScenarioError(problem, value=text, allowed=ALLOWED[quantity], nearest=_nearest_unit(unit, units))


def _nearest_unit(unit: str, units: Mapping[str, Fraction]) -> str | None:
    """A wrong case is the commonest slip: of several units that differ in case only, the largest is meant (mb: MB)."""
    same = [known for known in units if known.lower() == unit.lower()]
    return max(same, key=lambda known: units[known], default=nearest_name(unit, units))


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
    magnitude = _rounded(value)
    for prefix, factor in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if magnitude >= factor:
            return f"{_three_digits(value / factor)} {prefix}{unit}"
    return f"{_three_digits(value)} {unit}"


def format_seconds(seconds: float) -> str:
    """Three significant digits in the unit a person would choose: ``12.3 ms``, ``4.56 s``, ``2.5 min``."""
    magnitude = _rounded(seconds)
    if magnitude >= 120:  # noqa: PLR2004 - two minutes
        return f"{_three_digits(seconds / 60)} min"
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if magnitude >= factor:
            return f"{_three_digits(seconds / factor)} {unit}"
    return "0 s" if seconds == 0 else f"{_three_digits(seconds / 1e-9)} ns"


def _rounded(value: float) -> float:
    """The magnitude to three digits, which decides on unit and decimals: 999.9 ms is written 1.00 s."""
    return abs(float(f"{value:.3g}"))


def _three_digits(value: float) -> str:
    magnitude = _rounded(value)
    decimals = 2 if magnitude < 10 else 1 if magnitude < 100 else 0  # noqa: PLR2004
    return f"{value:.{decimals}f}"
