"""Range asymmetric numeral systems (Duda 2014) in plain Python: interleaved 64-bit states, 12-bit static tables.

A stream is a row of segments, each with a table of its own. Within a segment the pairs of neighbours go to the states
in turn. Encoding goes backwards, so that decoding goes forwards; before a pair is coded, a state that would outgrow 63
bits sheds its lower 32: once for two symbols, because a pair adds 24 bits at most. A segment's odd last symbol is a
pair whose other half is certain. See `num_lanes` and `packed_stream` for what a stream looks like.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from testbed.codecs.framing import U8Array, U32Array
from testbed.codecs.reference import RANS_BITS, RANS_LANES, RANS_LOW, I64Array, U16Array

_TOTAL = 1 << RANS_BITS
_FEW = 4096
_STATE_BYTES = 8
SHORT_BYTES = 5  # the fewest that a lone state takes where words follow


def num_lanes(count: int) -> int:
    """Four for speed; one for a short stream, where each further state would cost six bytes that carry nothing."""
    return RANS_LANES if count >= _FEW else 1


def first_state(lanes: int) -> int:
    """Where encoding begins. A lone state begins at 1, and so wastes a bit where the others waste 31 each."""
    return RANS_LOW if lanes > 1 else 1


def packed_stream(states: Sequence[int], words: U32Array) -> U8Array:
    """The final states, then the words, in the order of decoding.

    A lone state takes only the bytes that it needs, but five at least where words follow, so that the length of the
    stream tells how many it takes.
    """
    size = _STATE_BYTES
    if len(states) == 1:
        size = max((states[0].bit_length() + 7) // 8, SHORT_BYTES if words.size else 1)
    head = np.frombuffer(b"".join([state.to_bytes(size, "little") for state in states]), np.uint8)
    return np.concatenate([head, words.astype("<u4", copy=False).view(np.uint8)])


def head_bytes(num_bytes: int, lanes: int) -> int:
    """What the states take of a stream of so many bytes, if it is one."""
    if lanes > 1:
        return _STATE_BYTES * lanes
    return num_bytes if num_bytes <= _STATE_BYTES else (num_bytes - 1) % 4 + SHORT_BYTES


def unpacked_stream(stream: U8Array, lanes: int) -> tuple[list[int], U8Array] | None:
    """(states, bytes of the words) of a stream that encoding can have made as far as these tell, else None."""
    head = head_bytes(stream.size, lanes)
    size, num_bytes = head // lanes, stream.size - head
    if num_bytes < 0 or num_bytes % 4 or not head:
        return None
    states = [int.from_bytes(stream[at : at + size].tobytes(), "little") for at in range(0, head, size)]
    lowest = RANS_LOW if lanes > 1 or num_bytes else 1
    if lanes == 1 and (size > SHORT_BYTES or not num_bytes):
        lowest = max(lowest, 1 << 8 * (size - 1))
    return (states, stream[head:]) if all(lowest <= state < RANS_LOW << 32 for state in states) else None


def rans_table(symbols: U8Array) -> U16Array:
    """Frequencies [256] of a non-empty stream that sum to 4096: counts scaled down, none that occurs at zero.

    The most frequent symbol takes what rounding leaves; no symbol has all 4096, which 12 bits can't hold.
    """
    counts: I64Array = np.bincount(symbols, minlength=256).astype(np.int64)
    frequencies = np.where(counts > 0, np.maximum(1, counts * _TOTAL // symbols.size), 0)
    if np.count_nonzero(frequencies) == 1:
        frequencies[(int(symbols[0]) + 1) % 256] = 1
    while (excess := int(frequencies.sum()) - _TOTAL) != 0:
        most = int(np.argmax(frequencies))
        frequencies[most] += max(-excess, 1 - int(frequencies[most]) // 2) if excess > 0 else -excess
    return frequencies.astype(np.uint16)


def rans_slots(frequencies_TK: U16Array) -> U32Array:
    """For each of a table's 4096 slots: symbol, its frequency << 8, the slot's place among the symbol's << 20."""
    slots = np.empty((len(frequencies_TK), _TOTAL), np.uint32)
    for row, frequencies in zip(slots, frequencies_TK.astype(np.int64), strict=True):
        symbols, starts = np.arange(256), np.cumsum(frequencies) - frequencies
        places = np.arange(_TOTAL) - np.repeat(starts, frequencies)
        row[:] = np.repeat(symbols | frequencies << 8, frequencies) | places << 20
    return slots


def _pairs(counts_S: I64Array, lanes: int) -> Iterator[tuple[int, int, int, int]]:
    """(segment, place of the first, how many, lane) of every pair, in the order of decoding."""
    start = 0
    for segment, count in enumerate(counts_S.tolist()):
        for at in range(0, count, 2):
            yield segment, start + at, min(2, count - at), at // 2 % lanes
        start += count


def rans_encode(symbols: U8Array, counts_S: I64Array, tables_S: I64Array, frequencies_TK: U16Array) -> U8Array:
    """The bytes of segments of so many symbols, each coded by its own one of the tables, where all have a frequency."""
    lanes = num_lanes(symbols.size)
    starts_TK = np.cumsum(frequencies_TK, axis=1, dtype=np.int64) - frequencies_TK
    states, shed = [first_state(lanes)] * lanes, []
    for segment, start, size, lane in reversed(list(_pairs(counts_S, lanes))):
        table, state = tables_S[segment], states[lane]
        pair = [
            (int(frequencies_TK[table, symbol]), int(starts_TK[table, symbol]))
            for symbol in symbols[start : start + size]
        ]
        limit = pair[0][0] * (pair[1][0] if size > 1 else _TOTAL)
        if state >= limit * RANS_LOW >> 2 * RANS_BITS << 32:
            shed.append(state & 0xFFFFFFFF)
            state >>= 32
        for frequency, place in reversed(pair):
            state = (state // frequency << RANS_BITS) + state % frequency + place
        states[lane] = state
    return packed_stream(states, np.array(shed[::-1], np.uint32))


def rans_decode(stream: U8Array, counts_S: I64Array, tables_S: I64Array, slots: U32Array) -> U8Array | None:
    """The symbols; None where the bytes are not exactly those of some stream."""
    count = int(counts_S.sum())
    lanes = num_lanes(count)
    unpacked = unpacked_stream(stream, lanes)
    if unpacked is None:
        return None
    states, packed = unpacked
    words, symbols, at = np.frombuffer(packed.tobytes(), "<u4").tolist(), np.zeros(count, np.uint8), 0
    for segment, start, size, lane in _pairs(counts_S, lanes):
        state = states[lane]
        for place in range(start, start + size):
            entry = int(slots[tables_S[segment], state & (_TOTAL - 1)])
            symbols[place] = entry & 0xFF
            state = (entry >> 8 & 0xFFF) * (state >> RANS_BITS) + (entry >> 20)
        if state < RANS_LOW and at < len(words):
            state, at = state << 32 | words[at], at + 1
        states[lane] = state
    return symbols if at == len(words) and states == [first_state(lanes)] * lanes else None


def by_group(rows_RC: U8Array, order_C: npt.NDArray[np.intp], sizes_G: I64Array) -> U8Array:
    """Symbols of the first group's channels, row by row, then those of the next; `order_C` are channels by group."""
    parts = np.split(order_C, np.cumsum(sizes_G)[:-1])
    return np.concatenate([rows_RC[:, columns].reshape(-1) for columns in parts])


def by_row(flat: U8Array, order_C: npt.NDArray[np.intp], sizes_G: I64Array) -> U8Array:
    """The inverse of `by_group`."""
    num_rows, at, first = flat.size // max(1, order_C.size), 0, 0
    rows_RC = np.empty((num_rows, order_C.size), np.uint8)
    for size in sizes_G.tolist():
        part = flat[at : at + num_rows * size].reshape(num_rows, size)
        rows_RC[:, order_C[first : first + size]] = part
        at, first = at + num_rows * size, first + size
    return rows_RC
