"""A run folder read back: its tables, its summary and what it says of its environment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from testbed.core.errors import ScenarioError
from testbed.results import files


class Stored:
    """A table on disk that is read a column, or a piece, at a time: what nobody asks for takes no memory.

    What it offers a `pa.Table` offers too, so that either will do. Raises ScenarioError for a file that is broken.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            with pq.ParquetFile(str(file)) as opened:
                self.column_names: list[str] = opened.schema_arrow.names
                self.num_rows: int = opened.metadata.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise _broken(file, error) from None

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        return self.select([name])[name]

    def select(self, columns: Sequence[str]) -> pa.Table:
        """These columns in memory."""
        return _read_table(self._file, columns)

    def pieces(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """These columns, some ten thousand rows at a time."""
        return batches(self._file, list(columns))


Table: TypeAlias = pa.Table | Stored


def pieces(table: Table, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """A table's columns, some rows at a time."""
    if isinstance(table, Stored):
        return table.pieces(columns)
    return iter(table.select(list(columns)).to_batches())


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Either in memory or on disk. Spans and transfers are not among them: `batches` reads them piece by piece."""

    requests: Table
    servers: Table
    server_totals: pa.Table
    links: Table
    devices: Table
    edges: pa.Table | None = None  # where the run had a topology
    server_states: pa.Table | None = None  # where servers were scaled, or could fail
    scale_events: pa.Table | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    folder: Path
    tables: Tables
    summary: dict[str, Any]
    environment: dict[str, Any]
    scenario_text: str  # YAML, as resolved


def open_tables(folder: Path) -> Tables:
    """Tables that are read when they are asked for. Raises ScenarioError where one is missing or broken."""
    return _tables(folder, Stored)


def read_tables(folder: Path) -> Tables:
    """All tables in memory. Raises ScenarioError where one is missing or broken."""
    return _tables(folder, _read_table)


def _tables(folder: Path, get: Callable[[Path], Table]) -> Tables:
    return Tables(
        requests=get(folder / files.REQUESTS),
        servers=get(folder / files.SERVERS),
        server_totals=_read_table(folder / files.SERVER_TOTALS),
        links=get(folder / files.LINKS),
        devices=get(folder / files.DEVICES),
        edges=_perhaps_table(folder / files.EDGES),
        server_states=_perhaps_table(folder / files.SERVER_STATES),
        scale_events=_perhaps_table(folder / files.SCALE_EVENTS),
    )


def read_run(folder: Path, tables: Callable[[Path], Tables] = read_tables) -> Run:
    """Raise ScenarioError for a folder that holds no run, or a broken one."""
    if not folder.is_dir():
        raise ScenarioError("there is no such run folder", file=folder)
    if not (folder / files.SUMMARY).is_file():
        raise ScenarioError("this folder is no run", file=folder, allowed=f"a folder with {files.SUMMARY} in it")
    return Run(
        folder=folder,
        tables=tables(folder),
        summary=_read_json(folder / files.SUMMARY),
        environment=_read_json(folder / files.ENVIRONMENT),
        scenario_text=_read_text(folder / files.SCENARIO),
    )


def batches(file: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """A streamed table in pieces; nothing where the run did not record it."""
    if not file.exists():
        return
    try:
        with pq.ParquetFile(str(file)) as opened:
            yield from opened.iter_batches(columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(file, error) from None


def _perhaps_table(file: Path) -> pa.Table | None:
    """None where the run had no use for it."""
    return _read_table(file) if file.exists() else None


def _read_table(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(str(file), columns=None if columns is None else list(columns))
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(file, error) from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read_text(file))
    except json.JSONDecodeError as error:
        raise _broken(file, error) from None
    if not isinstance(found, dict):
        raise ScenarioError("this run folder is broken: expected a mapping", file=file)
    return found


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(file, error) from None


def _broken(file: Path, error: Exception) -> ScenarioError:
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return ScenarioError(f"this run folder is broken: {first_line}", file=file)
