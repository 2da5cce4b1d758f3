"""Sparse values and bit strings, compiled: the same as their namesakes in reference.py."""

from __future__ import annotations

import numpy as np

from testbed.codecs.framing import U8Array, U32Array
from testbed.codecs.kernel_compile import compiled
from testbed.codecs.reference import I64Array

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_HALF_BITS = 16
_HALF = 1 << _HALF_BITS
_BLOCK = 64  # values looked at together: most blocks have nothing above the threshold
_EXPECTED_PER_ROW = 16


@compiled
def _gather(bits_ND: U32Array, tau: np.uint32, counts_N: U32Array, columns_M: U32Array, values_M: U32Array) -> int:
    """The number of values, of which no more are written than there is room for."""
    total, room = 0, columns_M.size
    for row in range(bits_ND.shape[0]):
        bits_D, before = bits_ND[row], total
        for start in range(0, bits_D.size, _BLOCK):
            block = bits_D[start : start + _BLOCK]
            found = np.uint32(0)
            for at in range(block.size):
                found = np.uint32(found + np.uint32((block[at] & _MAGNITUDE) >= tau))
            if found:
                for at in range(block.size):
                    if (block[at] & _MAGNITUDE) >= tau:
                        if total < room:
                            columns_M[total], values_M[total] = start + at, block[at]
                        total += 1
        counts_N[row] = total - before
    return total


def gather(bits_ND: U32Array, tau_bits: int) -> tuple[U32Array, U32Array, U32Array]:
    counts_N = np.empty(bits_ND.shape[0], np.uint32)
    room = min(_EXPECTED_PER_ROW * bits_ND.shape[0], bits_ND.size)
    while True:
        columns_M, values_M = np.empty(room, np.uint32), np.empty(room, np.uint32)
        total = _gather(bits_ND, np.uint32(tau_bits), counts_N, columns_M, values_M)
        if total <= room:
            return counts_N, columns_M[:total], values_M[:total]
        room = total


@compiled
def _rank(counts: I64Array, rank: int) -> tuple[int, int]:
    """(place where the counts add up to more than `rank`, how much of it is left there)."""
    place = 0
    while rank >= counts[place]:
        rank -= counts[place]
        place += 1
    return place, rank


@compiled
def _ranked(bits: U32Array, quantile: float) -> int:
    """Counts the upper halves of finite magnitudes, then the lower halves of those with the upper half that is it."""
    counts, num_finite = np.zeros(_HALF, np.int64), 0
    for word in bits:
        magnitude = np.uint32(word & _MAGNITUDE)
        if magnitude < _INFINITY:
            counts[magnitude >> np.uint32(_HALF_BITS)] += 1
            num_finite += 1
    rank = int(np.ceil(quantile * num_finite))
    if rank >= num_finite:
        return int(_INFINITY)
    upper, rank = _rank(counts, rank)
    counts[:] = 0
    for word in bits:
        magnitude = np.uint32(word & _MAGNITUDE)
        if magnitude >> np.uint32(_HALF_BITS) == upper:
            counts[magnitude & np.uint32(_HALF - 1)] += 1
    lower, rank = _rank(counts, rank)
    return upper << _HALF_BITS | lower


def ranked_magnitude(bits_ND: U32Array, quantile: float) -> int:
    return _ranked(bits_ND.reshape(-1), quantile)


@compiled
def scatter(bits_ND: U32Array, counts_N: U32Array, columns_M: U32Array, values_M: U32Array, tau_bits: int) -> bool:
    at, hidden_size = 0, bits_ND.shape[1]
    for row in range(bits_ND.shape[0]):
        last = -1
        for _ in range(counts_N[row]):
            column = int(columns_M[at])
            if column <= last or column >= hidden_size or int(values_M[at] & _MAGNITUDE) < tau_bits:
                return False
            bits_ND[row, column] = values_M[at]
            last = column
            at += 1
    return True


@compiled
def _pack_bits(values: U32Array, width: int, packed: U8Array) -> None:
    buffer, held, at = np.uint64(0), 0, 0
    for value in values:
        buffer |= np.uint64(value) << np.uint64(held)
        held += width
        while held >= 8:  # noqa: PLR2004 - bits a byte
            packed[at] = np.uint8(buffer & np.uint64(0xFF))
            buffer >>= np.uint64(8)
            held -= 8
            at += 1
    if held:
        packed[at] = np.uint8(buffer)


def pack_bits(values: U32Array, width: int) -> U8Array:
    packed = np.empty((values.size * width + 7) // 8, np.uint8)
    _pack_bits(values, width, packed)
    return packed


@compiled
def _unpack_bits(packed: U8Array, width: int, values: U32Array) -> None:
    buffer, held, at = np.uint64(0), 0, 0
    mask = np.uint64((1 << width) - 1)
    for place in range(values.size):
        while held < width:
            buffer |= np.uint64(packed[at]) << np.uint64(held)
            held += 8
            at += 1
        values[place] = np.uint32(buffer & mask)
        buffer >>= np.uint64(width)
        held -= width


def unpack_bits(packed: U8Array, width: int, count: int) -> U32Array:
    values = np.empty(count, np.uint32)
    _unpack_bits(packed, width, values)
    return values
