"""Quantities with units: exact, whatever their spelling, and refused where a unit could be mistaken."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.core.errors import ScenarioError
from testbed.core.units import (
    ALLOWED,
    NAMES,
    UNITS,
    format_seconds,
    format_si,
    parse_exactly,
    parse_quantity,
    serialisation_ns,
)


@pytest.mark.parametrize(
    ("text", "quantity", "expected"),
    [
        ("15 ms", "time", 0.015),
        ("2.5us", "time", 2.5e-6),
        ("3 \N{MICRO SIGN}s", "time", 3e-6),
        ("3 \N{GREEK SMALL LETTER MU}s", "time", 3e-6),
        (" 1.5 h ", "time", 5400.0),
        ("1_000 B", "size", 1000.0),
        ("8 GiB", "size", 8 * 2.0**30),
        ("8 GB", "size", 8e9),
        ("20 Mbit/s", "bitrate", 20e6),
        ("20 Mbps", "bitrate", 20e6),
        ("2.5 MB/s", "bitrate", 20e6),
        ("9 GB/s", "bandwidth", 9e9),
        ("1e2 GFLOP/s", "compute", 1e11),
        ("30 /min", "frequency", 0.5),
        ("250 mW", "power", 0.25),
        ("1 Wh", "energy", 3600.0),
        ("2 %", "ratio", 0.02),
        ("0.02", "ratio", 0.02),
        (0.02, "ratio", 0.02),
        (0, "time", 0.0),
        ("0", "size", 0.0),
        ("-.5 s", "time", -0.5),
    ],
)
def test_a_number_with_a_unit_is_read_in_the_base_unit(text: object, quantity: str, expected: float) -> None:
    assert parse_quantity(text, quantity) == expected


@pytest.mark.parametrize(
    ("value", "quantity", "problem"),
    [
        (15, "time", "needs a unit"),
        ("15", "time", "needs a unit"),
        ("15 mz", "time", "unknown unit 'mz'"),
        ("20 ms", "bitrate", "unknown unit 'ms'"),
        ("fast", "bitrate", "not a bit rate"),
        ("", "time", "not a time"),
        ("1 2 s", "time", "unknown unit '2 s'"),
        ("1e9999999999 s", "time", "not a time"),
        ("1e400 B/s", "bandwidth", "too large"),
        (True, "ratio", "a ratio is expected"),
        (None, "ratio", "a ratio is expected"),
        ([1], "size", "a size is expected"),
        (math.nan, "ratio", "not a ratio"),
        (math.inf, "ratio", "not a ratio"),
        ("nan", "ratio", "not a ratio"),
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(value: object, quantity: str, problem: str) -> None:
    with pytest.raises(ScenarioError, match=problem) as caught:
        parse_quantity(value, quantity)
    assert caught.value.value is value
    assert "too large" in problem or caught.value.allowed == ALLOWED[quantity]


def test_the_nearest_unit_is_offered() -> None:
    with pytest.raises(ScenarioError, match="did you mean 'Mbit/s'"):
        parse_quantity("20 mbit/s", "bitrate")


@pytest.mark.parametrize("quantity", UNITS)
def test_every_quantity_says_what_it_is_and_allows_its_own_example(quantity: str) -> None:
    assert NAMES[quantity]
    example = ALLOWED[quantity].rpartition("such as ")[2].partition(" or ")[0]
    assert parse_quantity(example, quantity) > 0


@given(number=st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9))
def test_the_spelling_of_a_unit_makes_no_difference(number: object) -> None:
    thousands = Fraction(str(number)) / 1000
    assert parse_exactly(f"{number} kbit/s", "bitrate") == thousands * parse_exactly("1 Mbit/s", "bitrate")
    assert parse_exactly(f"{number} ms", "time") == parse_exactly(f"{number}e3 us", "time")


@given(value=st.floats(allow_nan=False, allow_infinity=False, min_value=1e-300, max_value=1e300))
def test_a_float_written_in_its_base_unit_is_read_back_to_the_last_bit(value: float) -> None:
    assert parse_quantity(f"{value!r} FLOP/s", "compute") == value


@given(size=st.integers(1, 10**9), rate=st.integers(1, 10**12))
def test_no_link_is_faster_than_its_rate(size: int, rate: int) -> None:
    taken_ns = serialisation_ns(size, rate)
    assert (taken_ns - 1) * rate < size * 8 * 10**9 <= taken_ns * rate


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (1.5e-9, "1.50 ns"),
        (12.34e-3, "12.3 ms"),
        (4.56, "4.56 s"),
        (119, "119 s"),
        (150, "2.50 min"),
        (-0.25, "-250 ms"),
        (0.99999, "1.00 s"),
        (9.999, "10.0 s"),
    ],
)
def test_seconds_are_written_as_a_person_would(seconds: float, expected: str) -> None:
    assert format_seconds(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2.1e7, "21.0 Mbit/s"), (999, "999 bit/s"), (0, "0.00 bit/s"), (999_999, "1.00 Mbit/s"), (99.96, "100 bit/s")],
)
def test_si_prefixes_keep_three_digits(value: float, expected: str) -> None:
    assert format_si(value, "bit/s") == expected


@given(seconds=st.floats(1e-9, 1e9))
def test_what_is_written_is_within_half_of_its_last_digit(seconds: float) -> None:
    assert parse_quantity(format_seconds(seconds), "time") == pytest.approx(seconds, rel=0.0051)
