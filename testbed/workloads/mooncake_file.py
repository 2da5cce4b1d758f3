"""Mooncake's JSONL traces. Every complaint has the file, the line and what stands there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from testbed.core.errors import ScenarioError, nearest_name
from testbed.scenarios.text_file import read_text
from testbed.workloads.instants import LAST_NS

_NS_PER_MS = 1_000_000
_MOST_TOKENS = 999_999_999
_KEYS = ("timestamp", "input_length", "output_length", "hash_ids")


@dataclass(frozen=True, slots=True, kw_only=True)
class MooncakeRow:
    """One request; each hash stands for a block of its prompt and all before it."""

    arrival_ns: int
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


def read_mooncake(file: str, limit: int | None) -> list[MooncakeRow]:
    """The rows up to a limit; their times never go back."""
    rows: list[MooncakeRow] = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if len(rows) == limit:
            break
        if line.strip():
            rows.append(_Line(file, number, line).row(rows[-1].arrival_ns if rows else 0))
    if not rows:
        raise ScenarioError("the trace has no rows", file=file)
    return rows


@dataclass(frozen=True, slots=True)
class _Line:
    file: str
    number: int
    text: str

    def row(self, before_ns: int) -> MooncakeRow:
        data = self._data()
        time_ms = data["timestamp"]
        if type(time_ms) not in {int, float} or not 0 <= time_ms <= LAST_NS / _NS_PER_MS:
            raise self._error("timestamp is no time", time_ms, "milliseconds in the first 36500 d")
        arrival_ns = round(time_ms * _NS_PER_MS)
        if arrival_ns < before_ns:
            raise self._error("the time is before that of the row above", time_ms, "rows in the order of their times")
        return MooncakeRow(
            arrival_ns=arrival_ns,
            input_length=self._count(data, "input_length"),
            output_length=self._count(data, "output_length"),
            hash_ids=self._hashes(data["hash_ids"]),
        )

    def _data(self) -> dict[str, Any]:
        try:
            data = json.loads(self.text)
        except json.JSONDecodeError as error:
            raise self._error(f"not JSON: {error.msg}", self.text[:80]) from None
        if not isinstance(data, dict):
            raise self._error("not a mapping", self.text[:80], "a mapping with " + ", ".join(_KEYS))
        for key in _KEYS:
            if key not in data:
                raise self._error(f"no {key}", None, sorted(data), nearest_name(key, data))
        return data

    def _count(self, data: dict[str, Any], key: str) -> int:
        value = data[key]
        if type(value) is not int or not 1 <= value <= _MOST_TOKENS:
            raise self._error(f"{key} is no number of tokens", value, f"a whole number from 1 to {_MOST_TOKENS}")
        return value

    def _hashes(self, value: object) -> tuple[int, ...]:
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise self._error("hash_ids is no list of whole numbers", str(value)[:80])
        return tuple(value)

    def _error(
        self, problem: str, value: object, allowed: str | list[str] | None = None, nearest: str | None = None
    ) -> ScenarioError:
        text = f"line {self.number}: {problem}"
        return ScenarioError(text, file=self.file, value=value, allowed=allowed, nearest=nearest)
