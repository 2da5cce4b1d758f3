"""Interleaved rANS, compiled: the same words as reference_rans.py. See there for the stream's definition.

Whether a state sheds or takes a word is as good as random, and a branch on it would be mispredicted at every other
symbol. The comparison is therefore a subtraction whose top bit is used as a number, which no compiler turns into a
branch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.codecs.framing import U8Array, U32Array
from testbed.codecs.kernel_compile import compiled
from testbed.codecs.reference import RANS_BITS, RANS_STATES, I64Array, U16Array

U64Array = npt.NDArray[np.uint64]
_TOTAL = 1 << RANS_BITS
_BITS, _MASK = np.uint64(RANS_BITS), np.uint64(_TOTAL - 1)
_WORD, _LOW, _WORD_MASK = np.uint64(16), np.uint64(1 << 16), np.uint64(0xFFFF)
_ZERO, _ONE, _TWO, _TOP = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(63)
_FULL_SHIFT = np.uint64(32 - RANS_BITS)
_HEAD = 2 * RANS_STATES
# Division by multiplication: r = ceil(2^44 / f) = (2^44 + e) / f with e < f. For x < 2^20 f, which shedding ensures,
# x r = 2^44 x / f + x e / f, where the second part is below 2^20 f < 2^44 / f: the quotient is exact, and x r < 2^64.
_RECIPROCAL_SHIFT = np.uint64(44)


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
def _step_in(
    state: np.uint64, symbol: np.uint8, table: U32Array, reciprocals: U64Array, words: U16Array, at: np.uint64
) -> tuple[np.uint64, np.uint64]:
    entry = np.uint64(table[symbol])
    frequency = entry & _WORD_MASK
    is_full = _ONE - ((state - (frequency << _FULL_SHIFT)) >> _TOP)
    words[at - _ONE] = np.uint16(state & _WORD_MASK)
    at = at - is_full
    state = state >> (is_full << np.uint64(4))
    quotient = (state * reciprocals[symbol]) >> _RECIPROCAL_SHIFT
    return state + quotient * (_MASK + _ONE - frequency) + (entry >> _WORD), at


@compiled
def _encode(symbols: U8Array, table: U32Array, reciprocals: U64Array, words: U16Array) -> int:
    """Fill `words` from its end; the place of the first."""
    states, whole = np.full(RANS_STATES, _LOW), symbols.size // RANS_STATES * RANS_STATES
    at = np.uint64(words.size)
    for i in range(symbols.size - 1, whole - 1, -1):
        states[i - whole], at = _step_in(states[i - whole], symbols[i], table, reciprocals, words, at)
    s0, s1, s2, s3, s4, s5, s6, s7 = states
    for i in range(whole - RANS_STATES, -1, -RANS_STATES):
        s7, at = _step_in(s7, symbols[i + 7], table, reciprocals, words, at)
        s6, at = _step_in(s6, symbols[i + 6], table, reciprocals, words, at)
        s5, at = _step_in(s5, symbols[i + 5], table, reciprocals, words, at)
        s4, at = _step_in(s4, symbols[i + 4], table, reciprocals, words, at)
        s3, at = _step_in(s3, symbols[i + 3], table, reciprocals, words, at)
        s2, at = _step_in(s2, symbols[i + 2], table, reciprocals, words, at)
        s1, at = _step_in(s1, symbols[i + 1], table, reciprocals, words, at)
        s0, at = _step_in(s0, symbols[i], table, reciprocals, words, at)
    for state in (s7, s6, s5, s4, s3, s2, s1, s0):
        words[at - _ONE], words[at - _TWO] = np.uint16(state & _WORD_MASK), np.uint16(state >> _WORD)
        at = at - _TWO
    return int(at)


@compiled
def _coding_tables(frequencies: U16Array) -> tuple[U32Array, U64Array]:
    """(frequency, start << 16) and the reciprocal of every symbol."""
    table, reciprocals, start = np.zeros(256, np.uint32), np.zeros(256, np.uint64), np.uint32(0)
    for symbol in range(256):
        frequency = np.uint32(frequencies[symbol])
        table[symbol] = frequency | start << np.uint32(16)
        if frequency:
            reciprocals[symbol] = np.uint64(((1 << 44) + int(frequency) - 1) // int(frequency))
        start = np.uint32(start + frequency)
    return table, reciprocals


def rans_encode(symbols: U8Array, frequencies: U16Array) -> U16Array:
    words = np.empty(symbols.size + _HEAD + 1, np.uint16)
    table, reciprocals = _coding_tables(frequencies)
    return words[_encode(symbols, table, reciprocals, words) :]


@compiled
def _step_out(
    state: np.uint64, table: U32Array, words: U16Array, at: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint8]:
    entry = np.uint64(table[state & _MASK])
    state = ((entry >> np.uint64(8)) & np.uint64(0xFFF)) * (state >> _BITS) + (entry >> np.uint64(20))
    is_short = (state - _LOW) >> _TOP
    state = (state << (is_short << np.uint64(4))) | (np.uint64(words[at]) & (_ZERO - is_short))
    return state, at + is_short, np.uint8(entry & np.uint64(0xFF))


@compiled
def _decode(words: U16Array, num_words: int, table: U32Array, symbols: U8Array) -> bool:
    """`words` has eight beyond `num_words`, so that one look at the end per eight symbols is enough."""
    states, whole = np.empty(RANS_STATES, np.uint64), symbols.size // RANS_STATES * RANS_STATES
    for lane in range(RANS_STATES):
        states[lane] = np.uint64(words[2 * lane]) << _WORD | np.uint64(words[2 * lane + 1])
    s0, s1, s2, s3, s4, s5, s6, s7 = states
    at, end = np.uint64(_HEAD), np.uint64(num_words)
    for i in range(0, whole, RANS_STATES):
        if at > end:
            return False
        s0, at, symbols[i] = _step_out(s0, table, words, at)
        s1, at, symbols[i + 1] = _step_out(s1, table, words, at)
        s2, at, symbols[i + 2] = _step_out(s2, table, words, at)
        s3, at, symbols[i + 3] = _step_out(s3, table, words, at)
        s4, at, symbols[i + 4] = _step_out(s4, table, words, at)
        s5, at, symbols[i + 5] = _step_out(s5, table, words, at)
        s6, at, symbols[i + 6] = _step_out(s6, table, words, at)
        s7, at, symbols[i + 7] = _step_out(s7, table, words, at)
    last = (s0, s1, s2, s3, s4, s5, s6, s7)
    for lane in range(RANS_STATES):
        states[lane] = last[lane]
    if at > end:
        return False
    for i in range(whole, symbols.size):
        states[i - whole], at, symbols[i] = _step_out(states[i - whole], table, words, at)
    for lane in range(RANS_STATES):
        if states[lane] != _LOW:
            return False
    return bool(at == end)


@compiled
def _decoding_table(frequencies: U16Array) -> U32Array:
    """For each of 4096 slots: symbol, frequency << 8, place among the symbol's slots << 20."""
    table, slot = np.empty(_TOTAL, np.uint32), 0
    for symbol in range(256):
        entry = np.uint32(symbol) | np.uint32(frequencies[symbol]) << np.uint32(8)
        for place in range(frequencies[symbol]):
            table[slot] = entry | np.uint32(place) << np.uint32(20)
            slot += 1
    return table


def rans_decode(words: U16Array, frequencies: U16Array, count: int) -> U8Array | None:
    if words.size < _HEAD:
        return None
    padded, symbols = np.zeros(words.size + RANS_STATES, np.uint16), np.empty(count, np.uint8)
    padded[: words.size] = words
    return symbols if _decode(padded, words.size, _decoding_table(frequencies), symbols) else None
