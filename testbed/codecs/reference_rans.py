"""Range asymmetric numeral systems (Duda 2014) in plain Python: eight interleaved states, 12-bit static tables.

Symbol i belongs to state i mod 8. Encoding goes backwards, so that decoding goes forwards; a state that would outgrow
32 bits first sheds its lower 16. The stream is the eight final states, upper half first, and the words shed.
"""

from __future__ import annotations

import numpy as np

from testbed.codecs.framing import U8Array
from testbed.codecs.reference import RANS_BITS, RANS_LOW, RANS_STATES, I64Array, U16Array

_TOTAL = 1 << RANS_BITS


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


def rans_encode(symbols: U8Array, frequencies: U16Array) -> U16Array:
    """The words of a stream whose symbols all have a frequency."""
    starts = np.concatenate([[0], np.cumsum(frequencies, dtype=np.int64)]).tolist()
    table, states, shed = frequencies.tolist(), [RANS_LOW] * RANS_STATES, []
    for place in range(symbols.size - 1, -1, -1):
        symbol, lane = int(symbols[place]), place % RANS_STATES
        state, frequency = states[lane], table[symbol]
        if state >= frequency << (32 - RANS_BITS):
            shed.append(state & 0xFFFF)
            state >>= 16
        states[lane] = (state // frequency << RANS_BITS) + state % frequency + starts[symbol]
    head = [half for state in states for half in (state >> 16, state & 0xFFFF)]
    return np.array(head + shed[::-1], np.uint16)


def rans_decode(words: U16Array, frequencies: U16Array, count: int) -> U8Array | None:
    """`count` symbols; None where the words are not exactly those of some stream."""
    if words.size < 2 * RANS_STATES:
        return None
    starts = np.concatenate([[0], np.cumsum(frequencies, dtype=np.int64)])
    symbol_of = np.repeat(np.arange(256), frequencies)
    stream = words.astype(np.int64).tolist()
    states = [stream[2 * lane] << 16 | stream[2 * lane + 1] for lane in range(RANS_STATES)]
    symbols, at = np.zeros(count, np.uint8), 2 * RANS_STATES
    for place in range(count):
        state = states[place % RANS_STATES]
        slot = state & (_TOTAL - 1)
        symbol = int(symbol_of[slot])
        state = int(frequencies[symbol]) * (state >> RANS_BITS) + slot - int(starts[symbol])
        if state < RANS_LOW:
            if at == len(stream):
                return None
            state, at = state << 16 | stream[at], at + 1
        states[place % RANS_STATES], symbols[place] = state, symbol
    return symbols if at == len(stream) and states == [RANS_LOW] * RANS_STATES else None
