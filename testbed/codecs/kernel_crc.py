"""CRC-32C (Castagnoli), sixteen bytes at a time from sixteen tables."""

from __future__ import annotations

from functools import cache

import numpy as np

from testbed.codecs.framing import U8Array, U32Array
from testbed.codecs.kernel_compile import compiled

_SLICES = 16
_LOW = np.uint64(0xFF)
_HALF = np.uint64(32)


@compiled
def _tables() -> U32Array:
    table = np.zeros((_SLICES, 256), np.uint32)
    for value in range(256):
        crc = np.uint32(value)
        for _ in range(8):
            crc = np.uint32((crc >> np.uint32(1)) ^ (np.uint32(0x82F63B78) * (crc & np.uint32(1))))
        table[0, value] = crc
    for value in range(256):
        for row in range(1, _SLICES):
            before = table[row - 1, value]
            table[row, value] = (before >> np.uint32(8)) ^ table[0, before & np.uint32(0xFF)]
    return table


@compiled
def _continued(data: U8Array, start: int, table: U32Array) -> int:
    crc = np.uint64(start ^ 0xFFFFFFFF)
    num_words = data.size // 16 * 2
    words = data[: 8 * num_words].view(np.uint64)
    for at in range(0, num_words, 2):
        a, b = words[at] ^ crc, words[at + 1]
        crc = np.uint64(
            table[15, a & _LOW]
            ^ table[14, (a >> np.uint64(8)) & _LOW]
            ^ table[13, (a >> np.uint64(16)) & _LOW]
            ^ table[12, (a >> np.uint64(24)) & _LOW]
            ^ table[11, (a >> np.uint64(32)) & _LOW]
            ^ table[10, (a >> np.uint64(40)) & _LOW]
            ^ table[9, (a >> np.uint64(48)) & _LOW]
            ^ table[8, a >> np.uint64(56)]
            ^ table[7, b & _LOW]
            ^ table[6, (b >> np.uint64(8)) & _LOW]
            ^ table[5, (b >> np.uint64(16)) & _LOW]
            ^ table[4, (b >> np.uint64(24)) & _LOW]
            ^ table[3, (b >> np.uint64(32)) & _LOW]
            ^ table[2, (b >> np.uint64(40)) & _LOW]
            ^ table[1, (b >> np.uint64(48)) & _LOW]
            ^ table[0, b >> np.uint64(56)]
        )
    for at in range(8 * num_words, data.size):
        crc = (crc >> np.uint64(8)) ^ np.uint64(table[0, (crc ^ np.uint64(data[at])) & _LOW])
    return int(crc ^ np.uint64(0xFFFFFFFF))


@cache
def _made_tables() -> U32Array:
    return _tables()


def crc32c(data: U8Array, crc: int) -> int:
    """The same as reference.crc32c."""
    return _continued(data, crc, _made_tables())
