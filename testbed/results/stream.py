"""A Parquet table written while the run goes on: bounded memory, whole rows only, readable after an interrupt."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from testbed.core.rng import I64Array

COMPRESSION = "zstd"
ROWS_PER_GROUP = 65_536


class TableStream:
    """Rows of integers in, row groups out; `names` decodes dictionary columns' integers, -1 to null; a
    collection may grow meanwhile.

    A row is added by one call into C, so an interrupt never leaves half of one.
    """

    def __init__(
        self,
        file: Path,
        schema: pa.Schema,
        names: Mapping[str, Collection[str]] = MappingProxyType({}),
        rows_per_group: int = ROWS_PER_GROUP,
    ) -> None:
        self._schema = schema
        self._names = names
        self._width = len(schema)
        self._row = struct.Struct(f"={self._width}q")
        self._cells = bytearray()
        self._full = rows_per_group * self._row.size
        self._writer = pq.ParquetWriter(str(file), schema, compression=COMPRESSION)

    def append(self, *row: int) -> None:
        """One row, in the schema's order; NumPy integers will do."""
        self._cells += self._row.pack(*row)  # packed: a quarter of what array("q").extend takes
        if len(self._cells) >= self._full:
            self._flush()

    def extend(self, rows_RC: I64Array) -> None:
        """Many rows at once."""
        self._cells += np.ascontiguousarray(rows_RC, dtype=np.int64).tobytes()
        if len(self._cells) >= self._full:
            self._flush()

    def close(self) -> None:
        """Write what is left and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if not self._cells:
            return
        table_RC = np.frombuffer(self._cells, dtype=np.int64).reshape(-1, self._width)
        columns = [self._column(table_RC[:, index], field) for index, field in enumerate(self._schema)]
        table = pa.Table.from_arrays(columns, schema=self._schema)
        self._cells = bytearray()  # only now: an interrupt before this line leaves the rows for `close`
        self._writer.write_table(table)

    def _column(self, values: Any, field: pa.Field) -> pa.Array:
        if pa.types.is_dictionary(field.type):
            codes = pa.array(values, mask=values < 0).cast(field.type.index_type)
            return pa.DictionaryArray.from_arrays(codes, pa.array(list(self._names[field.name]), pa.string()))
        return pa.array(np.ascontiguousarray(values)).cast(field.type)


def write_table(table: pa.Table, file: Path) -> None:
    """A whole table at once."""
    pq.write_table(table, str(file), compression=COMPRESSION)
