"""Measured delays in a text file: a time with its unit a line."""

from __future__ import annotations

from testbed.core.errors import ScenarioError
from testbed.core.units import NS_PER_S, parse_exactly
from testbed.scenarios.text_file import read_lines


def read_times(file: str) -> tuple[int, ...]:
    """The times, in nanoseconds; blank lines and what follows a ``#`` are left out.

    Raises ScenarioError, with file, line and content, for a file that can't be read, holds no time, or where a line is
    none that a delay can have.
    """
    found = [_time_ns(text, file, number) for number, text in read_lines(file)]
    if not found:
        raise ScenarioError("no jitter value in the file", file=file, allowed="a time a line, such as 2.5 ms")
    return tuple(found)


def _time_ns(text: str, file: str, line: int) -> int:
    try:
        time_ns = round(parse_exactly(text, "time") * NS_PER_S)
    except ScenarioError as error:
        raise ScenarioError(f"line {line}: {error.problem}", file=file, value=text, allowed=error.allowed) from None
    if time_ns < 0:
        raise ScenarioError(f"line {line}: a delay can't be negative", file=file, value=text, allowed="at least 0")
    return time_ns
