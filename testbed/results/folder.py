"""A run folder read back: its tables, its summary and what it says of its environment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from testbed.core.errors import ScenarioError
from testbed.results import files


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What fits in memory. Spans and transfers don't have to: `batches` reads them piece by piece."""

    requests: pa.Table
    servers: pa.Table
    server_totals: pa.Table
    links: pa.Table
    devices: pa.Table
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


def read_tables(folder: Path) -> Tables:
    """Raise ScenarioError where a table is missing or broken."""
    return Tables(
        requests=_read_table(folder, files.REQUESTS),
        servers=_read_table(folder, files.SERVERS),
        server_totals=_read_table(folder, files.SERVER_TOTALS),
        links=_read_table(folder, files.LINKS),
        devices=_read_table(folder, files.DEVICES),
        edges=_perhaps_table(folder, files.EDGES),
        server_states=_perhaps_table(folder, files.SERVER_STATES),
        scale_events=_perhaps_table(folder, files.SCALE_EVENTS),
    )


def read_run(folder: Path) -> Run:
    """Raise ScenarioError for a folder that holds no run, or a broken one."""
    if not folder.is_dir():
        raise ScenarioError("there is no such run folder", file=folder)
    if not (folder / files.SUMMARY).is_file():
        raise ScenarioError("this folder is no run", file=folder, allowed=f"a folder with {files.SUMMARY} in it")
    return Run(
        folder=folder,
        tables=read_tables(folder),
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


def _perhaps_table(folder: Path, name: str) -> pa.Table | None:
    """None where the run had no use for it."""
    return _read_table(folder, name) if (folder / name).exists() else None


def _read_table(folder: Path, name: str) -> pa.Table:
    file = folder / name
    try:
        return pq.read_table(str(file))
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
