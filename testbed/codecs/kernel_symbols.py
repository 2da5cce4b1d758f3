"""What is done to symbols before and after rANS, compiled: the same as their namesakes in reference_rans.py."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.codecs.framing import U8Array
from testbed.codecs.kernel_compile import compiled
from testbed.codecs.reference import RANS_BITS, I64Array, U16Array

_TOTAL = 1 << RANS_BITS


@compiled
def _counted(symbols: U8Array) -> I64Array:
    """Counts [256], by way of four tables, so that equal neighbours don't wait for each other."""
    tables = np.zeros((4, 256), np.int64)
    end = symbols.size - symbols.size % 4
    for at in range(0, end, 4):
        tables[0, symbols[at]] += 1
        tables[1, symbols[at + 1]] += 1
        tables[2, symbols[at + 2]] += 1
        tables[3, symbols[at + 3]] += 1
    for at in range(end, symbols.size):
        tables[0, symbols[at]] += 1
    counts: I64Array = tables[0] + tables[1] + tables[2] + tables[3]
    return counts


@compiled
def rans_table(symbols: U8Array) -> U16Array:
    counts, frequencies = _counted(symbols), np.zeros(256, np.int64)
    num_present = 0
    for symbol in range(256):
        if counts[symbol]:
            frequencies[symbol] = max(1, counts[symbol] * _TOTAL // symbols.size)
            num_present += 1
    if num_present == 1:
        frequencies[(int(symbols[0]) + 1) % 256] = 1
    total = int(frequencies.sum())
    while total != _TOTAL:
        most = int(np.argmax(frequencies))
        excess = total - _TOTAL
        change = max(-excess, 1 - int(frequencies[most]) // 2) if excess > 0 else -excess
        frequencies[most] += change
        total += change
    return frequencies.astype(np.uint16)


@compiled
def _move(rows_RC: U8Array, order_C: npt.NDArray[np.intp], sizes_G: I64Array, flat: U8Array, back: bool) -> None:
    """Row by row, so that a row stays in the cache while its groups are read or written."""
    num_rows = rows_RC.shape[0]
    for row in range(num_rows):
        symbols_C, first, base = rows_RC[row], 0, 0
        for size in sizes_G:
            columns, place = order_C[first : first + size], base + row * size
            part = flat[place : place + size]
            for at in range(columns.size):
                if back:
                    symbols_C[np.uint64(columns[at])] = part[at]
                else:
                    part[at] = symbols_C[np.uint64(columns[at])]
            first, base = first + size, base + num_rows * size


def by_group(rows_RC: U8Array, order_C: npt.NDArray[np.intp], sizes_G: I64Array) -> U8Array:
    flat = np.empty(rows_RC.size, np.uint8)
    _move(rows_RC, order_C, sizes_G, flat, False)
    return flat


def by_row(flat: U8Array, order_C: npt.NDArray[np.intp], sizes_G: I64Array) -> U8Array:
    rows_RC = np.empty((flat.size // max(1, order_C.size), order_C.size), np.uint8)
    _move(rows_RC, order_C, sizes_G, flat, True)
    return rows_RC
