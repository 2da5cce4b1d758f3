"""Text files that a scenario or a profile names, as an editor shows them; every complaint has the file and its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.core.errors import ScenarioError, nearest_name


def read_text(file: str) -> str:
    """The file's text; a byte order mark, as spreadsheets write it, is no part of it."""
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ScenarioError("no such file", file=file) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ScenarioError(f"line {line} is not UTF-8 text", file=file) from None
    except (OSError, ValueError) as error:
        raise ScenarioError(f"the file can't be read: {getattr(error, 'strerror', error)}", file=file) from None


def read_lines(file: str) -> list[tuple[int, str]]:
    """The lines that say something, each with its number; blank ones and what follows a ``#`` are left out."""
    lines = enumerate(read_text(file).split("\n"), start=1)
    stripped = ((number, line.partition("#")[0].strip()) for number, line in lines)
    return [(number, text) for number, text in stripped if text]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A CSV file with a header row. `rows` are those that are not empty, each with its line, and are read once."""

    file: str
    header: list[str]
    rows: Iterator[tuple[int, list[str]]]

    def column(self, name: str) -> int:
        """The place of a named column."""
        if name not in self.header:
            nearest = nearest_name(name, self.header)
            problem = "the trace has no such column"
            raise ScenarioError(problem, file=self.file, value=name, allowed=self.header, nearest=nearest)
        return self.header.index(name)


def read_csv(file: str) -> Table:
    """The table in a CSV file."""
    reader = csv.reader(io.StringIO(read_text(file)))
    rows = _rows(reader, file)
    _, header = next(rows, (0, None))
    if header is None:
        raise ScenarioError("the trace is empty: a header row is expected", file=file)
    return Table(file=file, header=header, rows=rows)


def _rows(reader: Any, file: str) -> Iterator[tuple[int, list[str]]]:
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise ScenarioError(f"line {reader.line_num} is not CSV: {error}", file=file) from None
