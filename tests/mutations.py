"""Messages broken at random, most of them with a checksum that is right, so that what lies behind it is reached."""

from __future__ import annotations

import struct

import numpy as np

from testbed.codecs.framing import CRC_BYTES, HEADER_BYTES, OVERHEAD_BYTES
from testbed.codecs.reference import crc32c


def resealed(message: bytes, digest: int = 0) -> bytes:
    """The message with the checksum of its content, as a session with this agreement has it."""
    body = message[:-CRC_BYTES]
    return body + struct.pack("<I", crc32c(np.frombuffer(body, np.uint8), digest))


def mutated(message: bytes, rng: np.random.Generator, digest: int = 0) -> bytes:
    """One to four random changes: bits, bytes, whole words of extreme value, cuts, insertions, repetitions."""
    data = bytearray(message)
    for _ in range(int(rng.integers(1, 5))):
        near_the_front = rng.random() < 0.6
        at = int(rng.integers(0, max(1, min(len(data), HEADER_BYTES + 24) if near_the_front else len(data))))
        kind = int(rng.integers(0, 7))
        if kind == 0 and data:
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1 and data:
            data[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF]))
        elif kind == 2:
            word = int(rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7F800000, 0x7FC00000]))
            data[at : at + 4] = struct.pack("<I", word)
        elif kind == 3:
            del data[at : at + int(rng.integers(1, 9))]
        elif kind == 4:
            data[at:at] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == 5:
            stop = at + int(rng.integers(1, 17))
            data[at:at] = data[at:stop]
        else:
            data[at : at + 8] = rng.bytes(8)
    broken = bytes(data)
    return resealed(broken, digest) if len(broken) >= OVERHEAD_BYTES and rng.random() < 0.9 else broken
