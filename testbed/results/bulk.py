"""Results of a run that hands over finished requests by the thousand: tables are written while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from testbed.core.cast import Cast, RequestFacts, RunEnd
from testbed.core.request_row import REQUEST, UNKNOWN, WIDTH
from testbed.core.rng import I64Array
from testbed.results import files
from testbed.results.stream import COMPRESSION, TableStream, write_table
from testbed.results.tables import NO_ANSWERS, Identity, device_table, link_table, request_table, server_total_table

_CHUNK = 16_384  # requests a row group


class Block:
    """Finished requests as rows of numbers, with the names that some numbers stand for."""

    def __init__(self, rows: I64Array, *, codecs: Sequence[str], reasons: Sequence[str]) -> None:
        self._rows = rows
        self.tokens: Mapping[int, Sequence[int]] = {}
        self.moves: Mapping[int, Sequence[int]] = {}
        self.codecs = codecs
        self.reasons = reasons

    def table(self) -> I64Array:
        return self._rows


class BulkRecorder:
    """Fills an existing, empty run folder from rows, in whatever order requests end.

    Requests are written in the order of their numbers, a chunk when all of it has ended, so that memory holds only
    chunks under way. Whatever happened, `close` leaves readable files.
    """

    def __init__(
        self, folder: Path, cast: Cast, facts: RequestFacts, *, codecs: Sequence[str], reasons: Sequence[str]
    ) -> None:
        self._folder = folder
        self._cast = cast
        self._facts = facts
        self._names = {"codecs": codecs, "reasons": reasons}
        self._identity = Identity.of(cast)
        self._num_iterations = np.zeros(len(cast.servers), np.int64)
        self._iterations = TableStream(folder / files.SERVERS, files.SERVER_SCHEMA)
        self._requests = pq.ParquetWriter(str(folder / files.REQUESTS), files.REQUEST_SCHEMA, compression=COMPRESSION)
        self._chunks: dict[int, I64Array] = {}
        self._missing: dict[int, int] = {}  # by chunk: requests that have not ended
        self._next = 0  # the first chunk not written

    def requests(self, rows: I64Array) -> None:
        """Take rows of requests that have ended."""
        chunks = rows[:, REQUEST] // _CHUNK
        for chunk in np.unique(chunks).tolist():
            if chunk not in self._chunks:
                self._chunks[chunk] = np.full((_CHUNK, WIDTH), UNKNOWN, np.int64)
                self._missing[chunk] = min(_CHUNK, len(self._facts.kind) - chunk * _CHUNK)
            own = rows[chunks == chunk]
            self._chunks[chunk][own[:, REQUEST] - chunk * _CHUNK] = own
            self._missing[chunk] -= len(own)
        while self._missing.get(self._next) == 0:
            self._write(self._next)
            self._next += 1

    def iterations(self, rows: I64Array) -> None:
        """Take rows of servers' iterations, in the order of their ends."""
        np.add.at(self._num_iterations, rows[:, 0], 1)
        self._iterations.extend(rows)

    def close(self, end: RunEnd) -> None:
        """Write what is left and every footer; of requests, those that have ended or were begun."""
        for chunk in sorted(self._chunks):
            self._write(chunk)
        self._requests.close()
        self._iterations.close()
        counted = pq.read_table(str(self._folder / files.REQUESTS), columns=["device", "outcome"])
        write_table(device_table(counted, self._cast, end), self._folder / files.DEVICES)
        write_table(link_table(self._cast, end), self._folder / files.LINKS)
        totals = server_total_table(self._num_iterations.tolist(), self._cast, end)
        write_table(totals, self._folder / files.SERVER_TOTALS)

    def _write(self, chunk: int) -> None:
        rows = self._chunks.pop(chunk)
        block = Block(rows[rows[:, REQUEST] != UNKNOWN], **self._names)
        self._requests.write_table(request_table(block, self._identity, self._facts, NO_ANSWERS))
        del self._missing[chunk]
