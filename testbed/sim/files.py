"""Files that a workload names: prompts and arrival traces. Every complaint has the file and its line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from testbed.core.errors import ScenarioError
from testbed.core.units import NS_PER_S
from testbed.scenarios.text_file import read_csv, read_text
from testbed.scenarios.workload import TraceArrivals

_COUNT = re.compile(r"0*[1-9][0-9]{0,8}")
_NS_PER_UNIT = {"s": NS_PER_S, "ms": 1_000_000, "us": 1_000, "ns": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRow:
    index: int
    arrival_ns: int
    num_prompt_tokens: int | None
    num_output_tokens: int | None


def _lines(file: str) -> list[str]:
    """Lines as editors count them: other separators that Unicode has are part of a line."""
    return read_text(file).split("\n")


def read_text_prompts(file: str) -> list[str]:
    """The non-empty lines."""
    texts = [line.strip() for line in _lines(file) if line.strip()]
    if not texts:
        raise ScenarioError("the file has no prompt", file=file)
    return texts


def read_id_prompts(file: str) -> list[list[int]]:
    """A JSON list of token ids, or a mapping with `ids`, a line."""
    prompts = [_ids(line, file, number) for number, line in enumerate(_lines(file), 1) if line.strip()]
    if not prompts:
        raise ScenarioError("the file has no prompt", file=file)
    return prompts


def _ids(line: str, file: str, number: int) -> list[int]:
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise ScenarioError(f"line {number} is not JSON: {error.msg}", file=file, value=line[:80]) from None
    ids = data.get("ids") if isinstance(data, dict) else data
    if not isinstance(ids, list) or not ids or not all(type(item) is int for item in ids):
        raise ScenarioError(
            f"line {number} is no prompt", file=file, value=line[:80], allowed='[1, 2, 3] or {"ids": [1, 2, 3]}'
        )
    return ids


def read_trace(arrivals: TraceArrivals) -> Iterator[TraceRow]:
    """The rows of a CSV trace, in the file's order, up to its limit."""
    table = read_csv(arrivals.file)
    time_column = table.column(arrivals.time_column)
    prompt_column, output_column = (
        None if name is None else table.column(name) for name in (arrivals.prompt_column, arrivals.output_column)
    )
    index = 0
    for line, row in table.rows:
        if index == arrivals.limit:
            return
        cells = _Cells(row, file=arrivals.file, line=line)
        yield TraceRow(
            index=index,
            arrival_ns=cells.time_ns(time_column, _NS_PER_UNIT[arrivals.time_unit]),
            num_prompt_tokens=cells.count(prompt_column),
            num_output_tokens=cells.count(output_column),
        )
        index += 1
    if index == 0:
        raise ScenarioError("the trace has no rows", file=arrivals.file)


@dataclass(frozen=True, slots=True)
class _Cells:
    """One row of a trace, and where it stands."""

    cells: list[str]
    file: str
    line: int

    def time_ns(self, column: int, ns_per_unit: int) -> int:
        text = self._cell(column)
        try:
            time_ns = round(float(text) * ns_per_unit)
        except (ValueError, OverflowError):
            allowed = "a number, the unit is time_unit's"
            raise ScenarioError(f"line {self.line}: not a time", file=self.file, value=text, allowed=allowed) from None
        if time_ns < 0:
            raise ScenarioError(f"line {self.line}: a time can't be negative", file=self.file, value=text)
        return time_ns

    def count(self, column: int | None) -> int | None:
        if column is None:
            return None
        text = self._cell(column)
        if not _COUNT.fullmatch(text.strip()):
            allowed = "a whole number from 1 to 999999999"
            raise ScenarioError(
                f"line {self.line}: not a number of tokens", file=self.file, value=text, allowed=allowed
            )
        return int(text)

    def _cell(self, column: int) -> str:
        if column >= len(self.cells):
            raise ScenarioError(f"line {self.line} has {len(self.cells)} columns, too few", file=self.file)
        return self.cells[column]
