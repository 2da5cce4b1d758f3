"""CSV files with a request a row. Every complaint has the file, the line and what stands there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from testbed.core.errors import ScenarioError
from testbed.core.units import NS_PER_S
from testbed.scenarios.text_file import read_csv
from testbed.workloads.instants import LAST_NS

_COUNT = re.compile(r"0*[1-9][0-9]{0,8}")
_NS_PER_UNIT = {"s": NS_PER_S, "ms": 1_000_000, "us": 1_000, "ns": 1}
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:?\d\d)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRows:
    """The columns of a trace, in the file's order; `counts` as they were asked for, None for none."""

    arrival_ns: list[int]
    counts: Sequence[list[int] | None]


def read_trace(
    file: str, *, time_column: str, time_unit: str, columns: Sequence[str | None], limit: int | None
) -> TraceRows:
    """The rows of a CSV trace up to a limit: instants that never go back, and columns of token counts.

    Dates count from the first row's, numbers from the start of the run.
    """
    table = read_csv(file)
    place = table.column(time_column)
    places = [None if name is None else table.column(name) for name in columns]
    times: list[int] = []
    counts: list[list[int] | None] = [None if column is None else [] for column in places]
    for line, row in table.rows:
        if len(times) == limit:
            break
        cells = _Cells(row, file=file, line=line)
        times.append(cells.time_ns(place, time_unit, times[-1] if times else None))
        for column, values in zip(places, counts, strict=True):
            if column is not None and values is not None:
                values.append(cells.count(column))
    if not times:
        raise ScenarioError("the trace has no rows", file=file)
    first_ns = times[0] if time_unit == "date" else 0
    return TraceRows(arrival_ns=[time_ns - first_ns for time_ns in times], counts=counts)


def read_counts(file: str, column: str) -> tuple[int, ...]:
    """One column of token counts."""
    table = read_csv(file)
    place = table.column(column)
    counts = tuple(_Cells(row, file=file, line=line).count(place) for line, row in table.rows)
    if not counts:
        raise ScenarioError("the trace has no rows", file=file)
    return counts


@dataclass(frozen=True, slots=True)
class _Cells:
    """One row of a trace, and where it stands."""

    cells: list[str]
    file: str
    line: int

    def time_ns(self, column: int, unit: str, before_ns: int | None) -> int:
        text = self._cell(column)
        time_ns = self._date_ns(text) if unit == "date" else self._number_ns(text, _NS_PER_UNIT[unit])
        if before_ns is not None and time_ns < before_ns:
            raise self._error("the time is before that of the row above", text, "rows in the order of their times")
        return time_ns

    def count(self, column: int) -> int:
        text = self._cell(column)
        if not _COUNT.fullmatch(text.strip()):
            raise self._error("not a number of tokens", text, "a whole number from 1 to 999999999")
        return int(text)

    def _number_ns(self, text: str, ns_per_unit: int) -> int:
        try:
            time_ns = round(float(text) * ns_per_unit)
        except (ValueError, OverflowError):
            raise self._error("not a time", text, "a number, the unit is time_unit's") from None
        if time_ns < 0:
            raise self._error("a time can't be negative", text)
        if time_ns > LAST_NS:
            raise self._error("the time is too late", text, "a time in the first 36500 d")
        return time_ns

    def _date_ns(self, text: str) -> int:
        """Nanoseconds since 1970; without a zone, in UTC."""
        match = _DATE.fullmatch(text.strip())
        try:
            if match is None:
                raise ValueError
            moment = datetime.fromisoformat(f"{match[1]}T{match[2]}{match[4] or '+00:00'}")
        except ValueError:
            raise self._error("not a date", text, "such as 2023-11-16 18:17:03.9799600") from None
        since = moment - _EPOCH
        return (since.days * 86_400 + since.seconds) * NS_PER_S + int((match[3] or "0").ljust(9, "0"))

    def _cell(self, column: int) -> str:
        if column >= len(self.cells):
            raise ScenarioError(f"line {self.line} has {len(self.cells)} columns, too few", file=self.file)
        return self.cells[column]

    def _error(self, problem: str, text: str, allowed: str | None = None) -> ScenarioError:
        return ScenarioError(f"line {self.line}: {problem}", file=self.file, value=text, allowed=allowed)
