"""The Walsh-Hadamard rotation, compiled: the same as its namesake in reference_rotation.py."""

from __future__ import annotations

import numpy as np

from testbed.codecs.framing import F32Array
from testbed.codecs.kernel_compile import compiled

_EIGHT = 8


@compiled
def _eights(block: F32Array) -> None:
    """Distances 1, 2 and 4 in one go over each eight values."""
    for at in range(0, block.size, 8):
        a, b, c, d = block[at], block[at + 1], block[at + 2], block[at + 3]
        e, f, g, h = block[at + 4], block[at + 5], block[at + 6], block[at + 7]
        a, b, c, d, e, f, g, h = a + b, a - b, c + d, c - d, e + f, e - f, g + h, g - h
        a, b, c, d, e, f, g, h = a + c, b + d, a - c, b - d, e + g, f + h, e - g, f - h
        block[at], block[at + 1], block[at + 2], block[at + 3] = a + e, b + f, c + g, d + h
        block[at + 4], block[at + 5], block[at + 6], block[at + 7] = a - e, b - f, c - g, d - h


@compiled
def _pass(block: F32Array, distance: int) -> None:
    for start in range(0, block.size, 2 * distance):
        low, high = block[start : start + distance], block[start + distance : start + 2 * distance]
        for at in range(distance):
            first, second = low[at], high[at]
            low[at] = first + second
            high[at] = first - second


@compiled
def _rotate_block(block: F32Array) -> None:
    distance = 1
    if block.size >= _EIGHT:
        _eights(block)
        distance = _EIGHT
    while distance < block.size:
        _pass(block, distance)
        distance *= 2


@compiled
def _hadamard(hidden_ND: F32Array, rotated_ND: F32Array) -> None:
    hidden_size = hidden_ND.shape[1]
    for row in range(hidden_ND.shape[0]):
        start = 0
        for place in range(16, -1, -1):
            size = 1 << place
            if hidden_size & size:
                norm = np.float32(size**-0.5)
                block = rotated_ND[row, start : start + size]
                for at in range(size):
                    block[at] = hidden_ND[row, start + at] * norm
                _rotate_block(block)
                start += size


def hadamard(hidden_ND: F32Array) -> F32Array:
    rotated_ND = np.empty(hidden_ND.shape, np.float32)
    _hadamard(hidden_ND, rotated_ND)
    return rotated_ND
