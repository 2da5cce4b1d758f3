"""Measured delays in a text file: a time with its unit a line."""

from __future__ import annotations

from pathlib import Path

from testbed.core.errors import ScenarioError
from testbed.core.units import NS_PER_S, parse_exactly


def read_times(file: str) -> tuple[int, ...]:
    """The times, in nanoseconds; blank lines and what follows a ``#`` are left out.

    Raises ScenarioError, with file, line and content, for a file that can't be read, holds no time, or where a line is
    none that a delay can have.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"the file of jitter values can't be read: {error}", file=file) from None
    found = []
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if text:
            found.append(_time_ns(text, file, number))
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
