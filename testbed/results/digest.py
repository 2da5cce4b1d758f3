"""The digest of a run's results: the same for the same tables, whatever engine, executor or partition made them."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from testbed.results.folder import Tables


def result_digest(tables: Tables) -> str:
    """SHA-256 over requests, devices, links and servers' totals, column by column.

    Requests hold the time of every hop, so runs that differ in when something happened differ here.
    """
    digest = hashlib.sha256()
    for table in (tables.requests, tables.devices, tables.links, tables.server_totals):
        for name in table.column_names:
            digest.update(name.encode())
            for part in _parts(table[name]):
                digest.update(part)
    return digest.hexdigest()


def _parts(column: pa.ChunkedArray) -> list[bytes]:
    """What is null, and what the rest holds: of numbers their bytes, of anything else their text."""
    held = column.drop_null()
    nulls = np.packbits(pc.is_null(column).to_numpy()).tobytes()
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return [nulls, np.ascontiguousarray(held.to_numpy()).tobytes()]
    if pa.types.is_boolean(column.type):
        return [nulls, np.packbits(held.to_numpy()).tobytes()]
    if pa.types.is_string(column.type):
        return [nulls, *_names(held)]
    return [nulls, repr(held.to_pylist()).encode()]


def _names(column: pa.ChunkedArray) -> list[bytes]:
    """Few names, many times: the names in order, then their numbers."""
    names = sorted(column.unique().to_pylist())
    numbers = pc.index_in(column, pa.array(names, pa.string())).to_numpy()
    return ["\0".join(names).encode(), np.ascontiguousarray(numbers).tobytes()]
