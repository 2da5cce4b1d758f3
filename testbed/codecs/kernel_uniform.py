"""Uniform grids and 8-bit floats, compiled: the same as their namesakes in reference_uniform.py.

Kernels call kernels of this file only: numba's cache on disk notices a change of the file that a kernel stands in, and
of no other.
"""

from __future__ import annotations

import numpy as np

from testbed.codecs.framing import F32Array, U8Array, U32Array
from testbed.codecs.kernel_compile import compiled
from testbed.codecs.reference_uniform import E4M3

_MAGNITUDE, _SIGN = np.uint32(0x7FFFFFFF), np.uint32(0x80000000)
_ROUNDER = np.float32(1.5 * 2**23)  # added and taken away, it rounds |x| < 2^22 to the nearest integer, ties to even
_ZERO, _ONE = np.float32(0), np.float32(1)
_LARGEST = np.float32(448)
_SMALLEST_NORMAL = np.float32(2.0**-6)
_BYTE, _HALF_BYTE = 8, 4


@compiled
def _fill_below(row_D: F32Array, bits_D: U32Array, tau: np.uint32, below_D: F32Array) -> tuple[np.float32, np.float32]:
    """X_below of a row; (its lowest, its highest), 0 among them."""
    low, high = _ZERO, _ZERO
    for at in range(row_D.size):
        value = row_D[at] if (bits_D[at] & _MAGNITUDE) < tau else _ZERO
        below_D[at] = value
        low = min(low, value)
        high = max(high, value)
    return low, high


@compiled
def _count_above(bits_D: U32Array, tau: np.uint32) -> int:
    found = np.uint32(0)
    for at in range(bits_D.size):
        found = np.uint32(found + np.uint32((bits_D[at] & _MAGNITUDE) >= tau))
    return int(found)


@compiled
def _fill_codes(
    below_D: F32Array, divisor: np.float32, lowest: np.float32, highest: np.float32, zero: int, mask: int, out: U8Array
) -> None:
    for at in range(below_D.size):
        nearest = np.float32(np.float32(below_D[at] / divisor + _ROUNDER) - _ROUNDER)
        clipped = np.int32(min(max(nearest, lowest), highest))
        out[at] = np.uint8((clipped + np.int32(zero)) & np.int32(mask))


@compiled
def _uniform(
    hidden_ND: F32Array,
    tau: np.uint32,
    bits: int,
    symmetric: bool,
    scales_N: F32Array,
    zeros_N: U8Array,
    codes_ND: U8Array,
) -> int:
    bits_ND, num_above = hidden_ND.view(np.uint32), 0
    below_D, mask = np.empty(hidden_ND.shape[1], np.float32), (1 << bits) - 1
    top = np.float32((1 << (bits - 1)) - 1 if symmetric else (1 << bits) - 1)
    for row in range(hidden_ND.shape[0]):
        low, high = _fill_below(hidden_ND[row], bits_ND[row], tau, below_D)
        num_above += _count_above(bits_ND[row], tau)
        scale = (max(-low, high) / top if symmetric else high / top - low / top) + _ZERO  # never -0
        divisor = scale if scale > 0 else _ONE
        zero = _ZERO if symmetric else min(np.float32(np.float32(-low / divisor + _ROUNDER) - _ROUNDER), top)
        scales_N[row], zeros_N[row] = scale, np.uint8(np.int32(zero))
        lowest = -top if symmetric else -zero
        _fill_codes(below_D, divisor, lowest, top - zero, int(zero), mask, codes_ND[row])
    return num_above


def uniform_codes(
    hidden_ND: F32Array, tau_bits: int, bits: int, symmetric: bool
) -> tuple[F32Array, U8Array, U8Array, int]:
    num_tokens = hidden_ND.shape[0]
    scales_N, zeros_N = np.empty(num_tokens, np.float32), np.empty(num_tokens, np.uint8)
    codes_ND = np.empty(hidden_ND.shape, np.uint8)
    num_above = _uniform(hidden_ND, np.uint32(tau_bits), bits, symmetric, scales_N, zeros_N, codes_ND)
    return scales_N, zeros_N, codes_ND, num_above


@compiled
def _values(
    scales_N: F32Array, zeros_N: U8Array, codes_ND: U8Array, bits: int, symmetric: bool, hidden_ND: F32Array
) -> None:
    half = np.int32(1 << (bits - 1)) if symmetric else np.int32(0)
    for row in range(codes_ND.shape[0]):
        codes_D, values_D, scale = codes_ND[row], hidden_ND[row], scales_N[row]
        offset = half if symmetric else np.int32(zeros_N[row])
        for at in range(codes_D.size):
            values_D[at] = scale * np.float32(np.int32((np.int32(codes_D[at]) ^ half) - offset))


def uniform_values(scales_N: F32Array, zeros_N: U8Array, codes_ND: U8Array, bits: int, symmetric: bool) -> F32Array:
    hidden_ND = np.empty(codes_ND.shape, np.float32)
    _values(scales_N, zeros_N, codes_ND, bits, symmetric, hidden_ND)
    return hidden_ND


@compiled
def _fill_e4m3(below_D: F32Array, bits_D: U32Array, divisor: np.float32, scaled_D: F32Array, out: U8Array) -> None:
    for at in range(below_D.size):
        scaled_D[at] = min(max(below_D[at] / divisor, -_LARGEST), _LARGEST)
    scaled_bits = scaled_D.view(np.uint32)
    for at in range(below_D.size):
        magnitude_bits = np.uint32(scaled_bits[at] & _MAGNITUDE)
        odd = np.uint32((magnitude_bits >> np.uint32(20)) & np.uint32(1))
        rounded = np.uint32(np.uint32(magnitude_bits + np.uint32(0x7FFFF)) + odd) >> np.uint32(20)
        normal = np.int32(np.int32(rounded) - np.int32((127 - 7) << 3))
        magnitude = abs(scaled_D[at])
        small = np.int32(np.float32(np.float32(magnitude * np.float32(512) + _ROUNDER) - _ROUNDER))
        code = small if magnitude < _SMALLEST_NORMAL else normal
        out[at] = np.uint8(np.uint8(code) | np.uint8(np.uint32(scaled_bits[at] & _SIGN) >> np.uint32(24)))


@compiled
def _fp8(hidden_ND: F32Array, tau: np.uint32, scales_N: F32Array, codes_ND: U8Array) -> int:
    bits_ND, num_above, hidden_size = hidden_ND.view(np.uint32), 0, hidden_ND.shape[1]
    below_D, scaled_D = np.empty(hidden_size, np.float32), np.empty(hidden_size, np.float32)
    for row in range(hidden_ND.shape[0]):
        low, high = _fill_below(hidden_ND[row], bits_ND[row], tau, below_D)
        num_above += _count_above(bits_ND[row], tau)
        scale = max(-low, high) / _LARGEST + _ZERO
        scales_N[row] = scale
        _fill_e4m3(below_D, bits_ND[row], scale if scale > 0 else _ONE, scaled_D, codes_ND[row])
    return num_above


def fp8_codes(hidden_ND: F32Array, tau_bits: int) -> tuple[F32Array, U8Array, int]:
    scales_N, codes_ND = np.empty(hidden_ND.shape[0], np.float32), np.empty(hidden_ND.shape, np.uint8)
    num_above = _fp8(hidden_ND, np.uint32(tau_bits), scales_N, codes_ND)
    return scales_N, codes_ND, num_above


@compiled
def _fp8_values(scales_N: F32Array, codes_ND: U8Array, table: F32Array, hidden_ND: F32Array) -> None:
    for row in range(codes_ND.shape[0]):
        codes_D, values_D, scale = codes_ND[row], hidden_ND[row], scales_N[row]
        for at in range(codes_D.size):
            values_D[at] = scale * table[codes_D[at]]


def fp8_values(scales_N: F32Array, codes_ND: U8Array) -> F32Array:
    hidden_ND = np.empty(codes_ND.shape, np.float32)
    _fp8_values(scales_N, codes_ND, E4M3, hidden_ND)
    return hidden_ND


@compiled
def _pack_pairs(codes_D: U8Array, packed: U8Array) -> None:
    pairs = codes_D.size // 2
    for at in range(pairs):
        packed[at] = np.uint8(codes_D[2 * at] | np.uint8(codes_D[2 * at + 1] << np.uint8(4)))
    if codes_D.size % 2:
        packed[pairs] = codes_D[codes_D.size - 1]


@compiled
def _unpack_pairs(packed: U8Array, codes_D: U8Array) -> None:
    pairs = codes_D.size // 2
    for at in range(pairs):
        codes_D[2 * at] = packed[at] & np.uint8(0x0F)
        codes_D[2 * at + 1] = packed[at] >> np.uint8(4)
    if codes_D.size % 2:
        codes_D[codes_D.size - 1] = packed[pairs] & np.uint8(0x0F)


@compiled
def _pack_rows(codes_ND: U8Array, widths_N: U8Array, packed: U8Array) -> None:
    at, hidden_size = 0, codes_ND.shape[1]
    for row in range(codes_ND.shape[0]):
        codes_D, width = codes_ND[row], int(widths_N[row])
        if width == _BYTE:
            packed[at : at + hidden_size] = codes_D
            at += hidden_size
            continue
        stop = at + (hidden_size * width + 7) // 8
        if width == _HALF_BYTE:
            _pack_pairs(codes_D, packed[at:stop])
            at = stop
            continue
        for start in range(0, hidden_size, 8):
            word = np.uint64(0)
            for place in range(min(8, hidden_size - start)):
                word |= np.uint64(codes_D[start + place]) << np.uint64(place * width)
            for place in range(min(width, stop - at)):
                packed[at + place] = np.uint8(word >> np.uint64(8 * place))
            at = min(at + width, stop)


def pack_rows(codes_ND: U8Array, widths_N: U8Array) -> U8Array:
    sizes = (codes_ND.shape[1] * widths_N.astype(np.int64) + 7) // 8
    packed = np.empty(int(sizes.sum()), np.uint8)
    _pack_rows(codes_ND, widths_N, packed)
    return packed


@compiled
def _unpack_rows(packed: U8Array, widths_N: U8Array, codes_ND: U8Array) -> None:
    at, hidden_size = 0, codes_ND.shape[1]
    for row in range(codes_ND.shape[0]):
        codes_D, width = codes_ND[row], int(widths_N[row])
        if width == 0:
            codes_D[:] = np.uint8(0)
            continue
        if width == _BYTE:
            codes_D[:] = packed[at : at + hidden_size]
            at += hidden_size
            continue
        stop, mask = at + (hidden_size * width + 7) // 8, np.uint64((1 << width) - 1)
        if width == _HALF_BYTE:
            _unpack_pairs(packed[at:stop], codes_D)
            at = stop
            continue
        for start in range(0, hidden_size, 8):
            word = np.uint64(0)
            for place in range(min(width, stop - at)):
                word |= np.uint64(packed[at + place]) << np.uint64(8 * place)
            for place in range(min(8, hidden_size - start)):
                codes_D[start + place] = np.uint8((word >> np.uint64(place * width)) & mask)
            at = min(at + width, stop)


def unpack_rows(packed: U8Array, widths_N: U8Array, hidden_size: int) -> U8Array:
    codes_ND = np.empty((widths_N.size, hidden_size), np.uint8)
    _unpack_rows(packed, widths_N, codes_ND)
    return codes_ND
