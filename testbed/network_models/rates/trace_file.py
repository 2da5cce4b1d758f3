"""Files of measured rates; every complaint has the file, the line and what stands there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from testbed.core.errors import ScenarioError
from testbed.core.units import BITS_PER_BYTE, NS_PER_S
from testbed.network_models.rates.loop import Loop, loop_of
from testbed.scenarios.text_file import read_csv, read_text

MAHIMAHI_BYTES = 1500  # of one delivery opportunity
NS_PER_MS = 1_000_000
# An opportunity is a segment in which a byte takes one nanosecond: one of 1,500 bytes lasts 1.5 us of its millisecond.
OPPORTUNITY_BPS = BITS_PER_BYTE * NS_PER_S
_MAX_DIGITS = 12  # of a time in milliseconds
_MAX_NS = 36_500 * 86_400 * NS_PER_S
_MAX_BPS = 10**18
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_SHOWN = 80

I64Array = npt.NDArray[np.int64]


def _lines(file: str) -> list[str]:
    lines = read_text(file).split("\n")
    if lines and not lines[-1]:
        del lines[-1]
    if not lines:
        raise ScenarioError("the trace is empty", file=file)
    return lines


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a trace, and where it stands."""

    file: str
    number: int
    text: str

    def refused(self, problem: str, allowed: str | None = None) -> ScenarioError:
        return ScenarioError(
            f"line {self.number}: {problem}", file=self.file, value=self.text[:_SHOWN], allowed=allowed
        )

    def whole(self, name: str, word: str, unit: Fraction, most: int) -> int:
        """A number of this unit in whole base units, rounded once."""
        if not _NUMBER.fullmatch(word.strip()):
            raise self.refused(f"not a {name}", "a number")
        number = round(Fraction(word.strip()) * unit)
        if number < 0:
            raise self.refused(f"a {name} can't be negative", "at least 0")
        if number > most:
            raise self.refused(f"the {name} is too large")
        return number


def read_mahimahi(file: str, *, scale: float) -> Loop:
    """A line is a whole number of milliseconds: one delivery opportunity, of 1,500 bytes times `scale`."""
    lines = _lines(file)
    for number, text in enumerate(lines, 1):
        if not (text.isascii() and text.isdecimal()) or len(text) > _MAX_DIGITS:
            raise _Line(file, number, text).refused("not a time in milliseconds", "a whole number from 0")
    times_ms = np.array(lines, dtype=np.int64)
    (backwards,) = np.nonzero(np.diff(times_ms) < 0)
    if len(backwards):
        before = int(backwards[0])
        allowed = f"at least {lines[before]}, as on the line before"
        raise _Line(file, before + 2, lines[before + 1]).refused("the time runs backwards", allowed)
    if not times_ms[-1]:
        raise ScenarioError("the trace lasts no time: its last line is its period", file=file, value="0")
    return _opportunities(file, times_ms, scale)


def _opportunities(file: str, times_ms: I64Array, scale: float) -> Loop:
    """A segment of one byte a nanosecond for what each millisecond has room for, and nothing between."""
    period_ms = int(times_ms[-1])
    starts_ms, counts = np.unique(times_ms % period_ms, return_counts=True)  # the end of a lap starts the next
    lasts_ns = np.rint(counts * (MAHIMAHI_BYTES * scale)).astype(np.int64)
    (outside,) = np.nonzero((lasts_ns < 1) | (lasts_ns >= NS_PER_MS))
    if len(outside):
        time_ms, count = int(starts_ms[outside[0]]), int(counts[outside[0]])
        raise ScenarioError(
            f"millisecond {time_ms or period_ms} has room for too {'much' if lasts_ns[outside[0]] else 'little'}",
            file=file, value=f"{count} x {MAHIMAHI_BYTES} B x {scale:g}", allowed=f"1 to {NS_PER_MS - 1} B",
        )  # fmt: skip
    starts_ns = np.stack([starts_ms * NS_PER_MS, starts_ms * NS_PER_MS + lasts_ns], axis=1).ravel()
    rates_bps = np.tile(np.array([OPPORTUNITY_BPS, 0]), len(starts_ms))
    lead_ns = round(np.count_nonzero(times_ms == 0) * MAHIMAHI_BYTES * scale)
    return loop_of(starts_ns, rates_bps, period_ns=period_ms * NS_PER_MS, lead_ns=lead_ns)


def read_seconds(file: str, *, scale: float) -> Loop:
    """A line is a time in seconds and a rate in Mbit/s, apart by blanks."""
    samples = []
    for number, text in enumerate(_lines(file), 1):
        line, words = _Line(file, number, text), text.split()
        if len(words) != 2:  # noqa: PLR2004
            raise line.refused("not a time and a rate", "a time in s and a rate in Mbit/s")
        samples.append((line, words[0], words[1]))
    return _piecewise(file, samples, Fraction(1), Fraction(10**6), scale)


def read_csv_trace(
    file: str, *, time_column: str, rate_column: str, time_unit_s: Fraction, rate_unit_bps: Fraction, scale: float
) -> Loop:
    """A CSV file with a header row."""
    table = read_csv(file)
    time_at, rate_at = table.column(time_column), table.column(rate_column)
    samples = []
    for number, row in table.rows:
        line = _Line(file, number, ",".join(row))
        if len(row) <= max(time_at, rate_at):
            raise line.refused("too few columns", f"{len(table.header)} columns")
        samples.append((line, row[time_at], row[rate_at]))
    if not samples:
        raise ScenarioError("the trace has no rows", file=file)
    return _piecewise(file, samples, time_unit_s, rate_unit_bps, scale)


def _piecewise(
    file: str, samples: list[tuple[_Line, str, str]], time_unit_s: Fraction, rate_unit_bps: Fraction, scale: float
) -> Loop:
    """From (line, time, rate): each rate holds from its time until the next one's."""
    segments: list[tuple[int, int]] = []
    for line, time, rate in samples:
        time_ns = line.whole("time", time, time_unit_s * NS_PER_S, _MAX_NS)
        rate_bps = line.whole("rate", rate, rate_unit_bps * Fraction(scale), _MAX_BPS)
        if segments and time_ns <= segments[-1][0]:
            raise line.refused("the time does not increase", "a time after that of the line before")
        segments.append((time_ns, rate_bps))
    if not any(rate_bps for _, rate_bps in segments):
        raise ScenarioError("every rate of the trace is 0: nothing could ever be sent", file=file)
    first_ns, last_ns = segments[0][0], segments[-1][0]
    holds_ns = last_ns - segments[-2][0] if len(segments) > 1 else NS_PER_S
    times_ns, rates_bps = np.array(segments, dtype=np.int64).T
    return loop_of(times_ns - first_ns, rates_bps, period_ns=last_ns - first_ns + holds_ns)
