"""rANS by tables that the session agreed on: nothing but the coded symbols travels."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from testbed.codecs.compiling import kernels
from testbed.codecs.effort import RANS_CODING
from testbed.codecs.entropy import NONE, RANS_AGREED, Plain, Sections, coded_symbols
from testbed.codecs.framing import CodecError, F32Array, U8Array, U32Array
from testbed.codecs.reference import I64Array, U16Array
from testbed.codecs.stages import Blocks, Side, Stage
from testbed.codecs.tables import Tables, counted_tables


class AgreedRans:
    """A segment for each alphabet that occurs and each group of channels, in that order.

    The tables of K alphabets and G groups stand in one row, T = K G of them. Without tables it refuses to code.
    """

    coder = RANS_AGREED
    effort = RANS_CODING

    def __init__(self, tables: Tables | None) -> None:
        self._agreed = tables

    def encode(self, stage: Stage, hidden_ND: F32Array, tau_bits: int) -> Sections:
        side, symbols, blocks, rest, num_above, packed_nbytes = stage.streams(hidden_ND, tau_bits)
        if not symbols.size:
            return Plain().encode(stage, hidden_ND, tau_bits)
        counts_S, tables_S = self._segments(blocks)
        stream = kernels().rans_encode(self._by_group(symbols, blocks), counts_S, tables_S, self._frequencies)
        if stream.size + rest.size >= packed_nbytes:
            return Plain().encode(stage, hidden_ND, tau_bits)
        return Sections(side, [stream, rest], RANS_AGREED, num_above)

    def decode(self, stage: Stage, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        blocks, rest_bytes = stage.blocks(side, num_tokens, hidden_size)
        counts_S, tables_S = self._segments(blocks)
        if not counts_S.sum():
            raise CodecError("symbols were coded, and there are none")
        symbols, rest = coded_symbols(payload, counts_S, tables_S, self._slots, rest_bytes)
        return stage.from_streams(side, self._by_row(symbols, blocks), rest, num_tokens, hidden_size)

    @property
    def _tables(self) -> Tables:
        if self._agreed is None:
            raise CodecError("the session has not agreed on the tables of the entropy coder")
        return self._agreed

    @property
    def _num_groups(self) -> int:
        return int(self._tables.frequencies.shape[1])

    @cached_property
    def _order(self) -> npt.NDArray[np.intp]:
        """Channels [K, C] by their group."""
        return np.argsort(self._tables.groups, axis=1, kind="stable")

    @cached_property
    def _sizes(self) -> I64Array:
        """How many channels each group has [K, G]."""
        sizes = [np.bincount(groups, minlength=self._num_groups) for groups in self._tables.groups]
        return np.stack(sizes).astype(np.int64)

    @cached_property
    def _frequencies(self) -> U16Array:
        return self._tables.frequencies.reshape(-1, 256)

    @cached_property
    def _slots(self) -> U32Array:
        return kernels().rans_slots(self._frequencies)

    def _segments(self, blocks: Blocks) -> tuple[I64Array, npt.NDArray[np.intp]]:
        """(symbols, table) of each segment."""
        if blocks.columns != self._tables.groups.shape[1] and blocks.rows:
            raise CodecError(f"{blocks.columns} symbols a row, and tables agreed on for {self._tables.groups.shape[1]}")
        places = [self._place(key) for key in blocks.keys]
        counts = [self._sizes[place] * rows for place, rows in zip(places, blocks.rows, strict=True)]
        tables = [place * self._num_groups + np.arange(self._num_groups) for place in places]
        nothing = np.empty(0, np.int64)
        return np.concatenate([nothing, *counts]), np.concatenate([nothing, *tables])

    def _place(self, key: int) -> int:
        if key not in self._tables.keys:
            raise CodecError(f"no table was agreed on for symbols of kind {key}")
        return self._tables.keys.index(key)

    def _by_group(self, symbols: U8Array, blocks: Blocks) -> U8Array:
        """Symbols of rows, as they are coded."""
        if self._num_groups == 1:
            return symbols
        parts, stop = [], 0
        for key, rows in zip(blocks.keys, blocks.rows, strict=True):
            start, stop, place = stop, stop + rows * blocks.columns, self._place(key)
            rows_RC = symbols[start:stop].reshape(rows, blocks.columns)
            parts.append(kernels().by_group(rows_RC, self._order[place], self._sizes[place]))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _by_row(self, symbols: U8Array, blocks: Blocks) -> U8Array:
        """The inverse of `_by_group`."""
        if self._num_groups == 1:
            return symbols
        parts, stop = [], 0
        for key, rows in zip(blocks.keys, blocks.rows, strict=True):
            start, stop, place = stop, stop + rows * blocks.columns, self._place(key)
            rows_RC = kernels().by_row(symbols[start:stop], self._order[place], self._sizes[place])
            parts.append(rows_RC.reshape(-1))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class TableCounter:
    """In an entropy coder's place: counts symbols for tables, and leaves them packed."""

    coder = NONE
    effort = RANS_CODING

    def __init__(self, num_groups: int) -> None:
        self._num_groups = num_groups
        self._found: Tables | None = None

    @property
    def tables(self) -> Tables:
        """Of what was encoded."""
        assert self._found is not None, "nothing was counted yet"
        return self._found

    def encode(self, stage: Stage, hidden_ND: F32Array, tau_bits: int) -> Sections:
        self._found = counted_tables(stage, hidden_ND, tau_bits, self._num_groups)
        return Plain().encode(stage, hidden_ND, tau_bits)

    def decode(self, stage: Stage, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        return Plain().decode(stage, side, payload, num_tokens, hidden_size)
