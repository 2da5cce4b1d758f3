"""Interleaved rANS, compiled: the same bytes as reference_rans.py. See there for the stream's definition.

Whether a state sheds or takes a word is as good as random, and a branch on it would be mispredicted at every other
pair. The comparison is therefore a subtraction whose top bit is used as a number, which no compiler turns into a
branch; where a choice remains, both sides of it are at hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from testbed.codecs.framing import U8Array, U32Array
from testbed.codecs.kernel_compile import compiled
from testbed.codecs.reference import RANS_BITS, RANS_LANES, RANS_LOW, I64Array, U16Array
from testbed.codecs.reference_rans import SHORT_BYTES, first_state, head_bytes, num_lanes

U64Array = npt.NDArray[np.uint64]
_TOTAL = 1 << RANS_BITS
_BITS, _MASK, _PLUS = np.uint64(RANS_BITS), np.uint64(_TOTAL - 1), np.uint64(_TOTAL)
_WORD, _LOW, _WORD_MASK = np.uint64(32), np.uint64(RANS_LOW), np.uint64(0xFFFFFFFF)
_ZERO, _ONE, _FIVE, _TOP = np.uint64(0), np.uint64(1), np.uint64(5), np.uint64(63)
_LIMIT_SHIFT = np.uint64(63 - 2 * RANS_BITS)
_TWO, _FOUR, _SIX, _EIGHT = np.uint64(2), np.uint64(4), np.uint64(6), np.uint64(8)
_HALF, _HALF_MASK = np.uint64(16), np.uint64(0xFFFF)
_STATE_BYTES = 8
_AHEAD = 4  # words that a block of pairs may look at beyond the end


def _generate_high(_context: Any, _a: Any, _b: Any) -> tuple[Any, Any]:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


# The upper 64 bits of the product of two numbers of 64 bits, which NumPy's types have no operation for.
_high: Any = intrinsic(_generate_high)


@compiled
def _shed(state: np.uint64, limit: np.uint64, words: U32Array, at: np.uint64) -> tuple[np.uint64, np.uint64]:
    """`limit`: the product of the pair's frequencies."""
    words[at - _ONE] = np.uint32(state & _WORD_MASK)
    is_full = _ONE - (((state >> _LIMIT_SHIFT) - limit) >> _TOP)
    return state >> (is_full << _FIVE), at - is_full


@compiled
def _put(state: np.uint64, entry: np.uint64, reciprocal: np.uint64) -> np.uint64:
    quotient = np.uint64(_high(state, reciprocal)) >> (entry >> _WORD)
    return state + quotient * (_PLUS - (entry & _HALF_MASK)) + (entry >> _HALF & _HALF_MASK)


@compiled
def _put_pair(
    state: np.uint64,
    symbols: U8Array,
    place: np.uint64,
    table: U64Array,
    reciprocals: U64Array,
    words: U32Array,
    at: np.uint64,
) -> tuple[np.uint64, np.uint64]:
    first, second = symbols[place], symbols[place + _ONE]
    one, two = table[first], table[second]
    state, at = _shed(state, (one & _HALF_MASK) * (two & _HALF_MASK), words, at)
    return _put(_put(state, two, reciprocals[second]), one, reciprocals[first]), at


@compiled
def _encode_segment(
    symbols: U8Array, table: U64Array, reciprocals: U64Array, states: U64Array, words: U32Array, at: np.uint64
) -> np.uint64:
    lanes, place = states.size, symbols.size // 2 * 2
    whole = place // 8 * 8 if lanes == RANS_LANES else 0
    if place < symbols.size:
        lane, entry = place // 2 % lanes, table[symbols[place]]
        state, at = _shed(states[lane], (entry & _HALF_MASK) << _BITS, words, at)
        states[lane] = _put(state, entry, reciprocals[symbols[place]])
    while place > whole:
        place -= 2
        lane = place // 2 % lanes
        states[lane], at = _put_pair(states[lane], symbols, np.uint64(place), table, reciprocals, words, at)
    if not whole:
        return at
    s0, s1, s2, s3 = states[0], states[1], states[2], states[3]
    front = np.uint64(place)
    while front > _ZERO:
        front -= _EIGHT
        s3, at = _put_pair(s3, symbols, front + _SIX, table, reciprocals, words, at)
        s2, at = _put_pair(s2, symbols, front + _FOUR, table, reciprocals, words, at)
        s1, at = _put_pair(s1, symbols, front + _TWO, table, reciprocals, words, at)
        s0, at = _put_pair(s0, symbols, front, table, reciprocals, words, at)
    states[0], states[1], states[2], states[3] = s0, s1, s2, s3
    return at


@compiled
def _fill_coding_table(frequencies: U16Array, table: U64Array, reciprocals: U64Array) -> None:
    """Of every symbol: frequency, start << 16, shift << 32; and the reciprocal.

    x // f is high(x r) >> (k - 1) with k = ceil(log2 f) and r = ceil(2^(63 + k) / f) = (2^(63 + k) + e) / f, e < f: the
    error x e / (f 2^(63 + k)) is below 1 / f, because x < 2^51 f when it is divided. Division by 1, for which r has no
    room: x - 1 by r = 2^64 - 1, and a start that makes good for it.
    """
    start = 0
    for symbol in range(256):
        frequency = int(frequencies[symbol])
        if frequency == 0:
            continue
        if frequency == 1:
            table[symbol] = np.uint64(1 | (start + _TOTAL - 1) << 16)
            reciprocals[symbol] = np.uint64(0xFFFFFFFFFFFFFFFF)
        else:
            k = 1
            while 1 << k < frequency:
                k += 1
            divisor = np.uint64(frequency)
            high, rest = (_ONE << _TOP) // divisor, ((_ONE << _TOP) % divisor) << np.uint64(k)
            table[symbol] = np.uint64(frequency | start << 16 | (k - 1) << 32)
            reciprocals[symbol] = (high << np.uint64(k)) + (rest + divisor - _ONE) // divisor
        start += frequency


@compiled
def _put_states(states: U64Array, stream: U8Array, at: int, num_words: int) -> int:
    """Final states before the words that begin at a byte; the place of the first of them all."""
    size = _STATE_BYTES
    if states.size == 1:
        size = SHORT_BYTES if num_words else 1
        while size < _STATE_BYTES and states[0] >> np.uint64(8 * size):
            size += 1
    for lane in range(states.size - 1, -1, -1):
        at -= size
        for byte in range(size):
            stream[at + byte] = np.uint8(states[lane] >> np.uint64(8 * byte) & np.uint64(0xFF))
    return at


@compiled
def _encode(
    symbols: U8Array, counts_S: I64Array, tables_S: I64Array, frequencies_TK: U16Array, states: U64Array
) -> U8Array:
    words = np.empty(symbols.size // 2 + counts_S.size + 2 * states.size + 1, np.uint32)
    at, stop = np.uint64(words.size), symbols.size
    table, reciprocals, made = np.zeros(256, np.uint64), np.zeros(256, np.uint64), -1
    for segment in range(counts_S.size - 1, -1, -1):
        start = stop - counts_S[segment]
        if tables_S[segment] != made and start < stop:
            made = tables_S[segment]
            _fill_coding_table(frequencies_TK[made], table, reciprocals)
        at = _encode_segment(symbols[start:stop], table, reciprocals, states, words, at)
        stop = start
    stream = words.view(np.uint8)
    return stream[_put_states(states, stream, 4 * int(at), words.size - int(at)) :]


def rans_encode(symbols: U8Array, counts_S: I64Array, tables_S: I64Array, frequencies_TK: U16Array) -> U8Array:
    lanes = num_lanes(symbols.size)
    return _encode(symbols, counts_S, tables_S, frequencies_TK, np.full(lanes, first_state(lanes), np.uint64))


@compiled
def rans_slots(frequencies_TK: U16Array) -> U32Array:
    slots = np.empty((frequencies_TK.shape[0], _TOTAL), np.uint32)
    for table in range(frequencies_TK.shape[0]):
        at = 0
        for symbol in range(256):
            frequency = int(frequencies_TK[table, symbol])
            for place in range(frequency):
                slots[table, at] = np.uint32(symbol | frequency << 8 | place << 20)
                at += 1
    return slots


@compiled
def _take_pair(
    state: np.uint64, slots: U32Array, symbols: U8Array, place: np.uint64, words: U32Array, at: np.uint64
) -> tuple[np.uint64, np.uint64]:
    entry = np.uint64(slots[state & _MASK])
    symbols[place] = np.uint8(entry & np.uint64(0xFF))
    state = (entry >> np.uint64(8) & _MASK) * (state >> _BITS) + (entry >> np.uint64(20))
    entry = np.uint64(slots[state & _MASK])
    symbols[place + _ONE] = np.uint8(entry & np.uint64(0xFF))
    state = (entry >> np.uint64(8) & _MASK) * (state >> _BITS) + (entry >> np.uint64(20))
    longer, is_short = state << _WORD | np.uint64(words[at]), state < _LOW
    return longer if is_short else state, at + np.uint64(is_short)


@compiled
def _decode_blocks(
    symbols: U8Array, slots: U32Array, states: U64Array, words: U32Array, at: np.uint64, end: np.uint64
) -> np.uint64:
    """Eight symbols at a time; the place behind the words taken, beyond `end` where there were too few."""
    s0, s1, s2, s3 = states[0], states[1], states[2], states[3]
    place, stop = _ZERO, np.uint64(symbols.size)
    while place < stop and at <= end:
        s0, at = _take_pair(s0, slots, symbols, place, words, at)
        s1, at = _take_pair(s1, slots, symbols, place + _TWO, words, at)
        s2, at = _take_pair(s2, slots, symbols, place + _FOUR, words, at)
        s3, at = _take_pair(s3, slots, symbols, place + _SIX, words, at)
        place += _EIGHT
    states[0], states[1], states[2], states[3] = s0, s1, s2, s3
    return at


@compiled
def _decode_segment(
    symbols: U8Array, slots: U32Array, states: U64Array, words: U32Array, at: np.uint64, end: np.uint64
) -> np.uint64:
    lanes, start = states.size, 0
    if lanes == RANS_LANES:
        start = symbols.size // 8 * 8
        at = _decode_blocks(symbols[:start], slots, states, words, at, end)
    for place in range(start, symbols.size):
        lane = place // 2 % lanes
        entry = np.uint64(slots[states[lane] & _MASK])
        symbols[place] = np.uint8(entry & np.uint64(0xFF))
        state = (entry >> np.uint64(8) & _MASK) * (states[lane] >> _BITS) + (entry >> np.uint64(20))
        if (place % 2 == 1 or place == symbols.size - 1) and at < end:
            is_short = (state - _LOW) >> _TOP
            state = (state << (is_short << _FIVE)) | (np.uint64(words[at]) & (_ZERO - is_short))
            at += is_short
        states[lane] = state
    return at


@compiled
def _read_states(head: U8Array, states: U64Array, num_bytes: int) -> bool:
    """Whether encoding can have made these states as far as they tell; `num_bytes` of words follow them."""
    lanes, size = states.size, head.size // states.size
    lowest = _LOW if lanes > 1 or num_bytes else _ONE
    if lanes == 1 and (size > SHORT_BYTES or not num_bytes):
        lowest = max(lowest, _ONE << np.uint64(8 * (size - 1)))
    for lane in range(lanes):
        for byte in range(size):
            states[lane] |= np.uint64(head[lane * size + byte]) << np.uint64(8 * byte)
        if states[lane] < lowest or states[lane] >> _TOP:
            return False
    return True


@compiled
def _decode(
    head: U8Array,
    words: U32Array,
    counts_S: I64Array,
    tables_S: I64Array,
    slots: U32Array,
    symbols: U8Array,
    lanes: int,
    last: int,
) -> bool:
    """`words` has `_AHEAD` beyond the last, so that one look at the end per eight symbols is enough."""
    states, num_words = np.zeros(lanes, np.uint64), words.size - _AHEAD
    if not _read_states(head, states, 4 * num_words):
        return False
    at, end, start = _ZERO, np.uint64(num_words), 0
    for segment in range(counts_S.size):
        stop = start + counts_S[segment]
        at = _decode_segment(symbols[start:stop], slots[tables_S[segment]], states, words, at, end)
        if at > end:
            return False
        start = stop
    for state in states:
        if state != np.uint64(last):
            return False
    return bool(at == end)


def rans_decode(stream: U8Array, counts_S: I64Array, tables_S: I64Array, slots: U32Array) -> U8Array | None:
    symbols = np.empty(int(counts_S.sum()), np.uint8)
    lanes = num_lanes(symbols.size)
    head = head_bytes(stream.size, lanes)
    num_words, odd = divmod(stream.size - head, 4)
    if num_words < 0 or odd or not head:
        return None
    words = np.zeros(num_words + _AHEAD, np.uint32)
    words.view(np.uint8)[: 4 * num_words] = stream[head:]
    found = _decode(stream[:head], words, counts_S, tables_S, slots, symbols, lanes, first_state(lanes))
    return symbols if found else None
