"""The Walsh-Hadamard rotation in plain NumPy; the compiled kernel gives the same bits."""

from __future__ import annotations

import numpy as np

from testbed.codecs.framing import F32Array


def hadamard(hidden_ND: F32Array) -> F32Array:
    """Each row times a symmetric orthonormal matrix, so that doing it twice gives the row again up to rounding.

    The matrix is block-diagonal: natural-order Walsh-Hadamard blocks of sizes the powers of two that add up to D, the
    largest first. In float32: values over sqrt(size) first, then sums and differences at distance 1, 2, 4, ...
    """
    rotated_ND, start = np.empty(hidden_ND.shape, np.float32), 0
    for size in block_sizes(hidden_ND.shape[1]):
        block = hidden_ND[:, start : start + size] * np.float32(size**-0.5)
        distance = 1
        while distance < size:
            pairs = block.reshape(hidden_ND.shape[0], size // (2 * distance), 2, distance)
            first, second = pairs[:, :, 0], pairs[:, :, 1]
            block = np.stack([first + second, first - second], axis=2).reshape(hidden_ND.shape[0], size)
            distance *= 2
        rotated_ND[:, start : start + size] = block
        start += size
    return rotated_ND


def block_sizes(hidden_size: int) -> list[int]:
    """Powers of two that add up to the hidden size, the largest first."""
    return [1 << place for place in reversed(range(hidden_size.bit_length())) if hidden_size >> place & 1]
