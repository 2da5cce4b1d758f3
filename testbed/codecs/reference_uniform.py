"""Uniform grids and 8-bit floats in plain NumPy, written from the formulas; the compiled kernels give the same bits.

Formulas: docs/codecs.md. Shapes: N tokens, D hidden size. A code is an unsigned byte of `bits` bits; on a symmetric
grid it is the signed code in two's complement.
"""

from __future__ import annotations

import numpy as np

from testbed.codecs.framing import F32Array, U8Array
from testbed.codecs.reference import below, num_above, pack_bits, unpack_bits

LARGEST_E4M3 = np.float32(448)
_SMALLEST_NORMAL_E4M3 = np.float32(2.0**-6)
_ONE, _ZERO = np.float32(1), np.float32(0)


def pack_rows(codes_ND: U8Array, widths_N: U8Array) -> U8Array:
    """Each row as a string of its own width's bits, lowest first, filled up to a whole byte."""
    rows = [pack_bits(codes_D.astype(np.uint32), int(width)) for codes_D, width in zip(codes_ND, widths_N, strict=True)]
    return np.concatenate([np.empty(0, np.uint8), *rows])


def unpack_rows(packed: U8Array, widths_N: U8Array, hidden_size: int) -> U8Array:
    codes_ND, at = np.zeros((widths_N.size, hidden_size), np.uint8), 0
    for row, width in enumerate(widths_N.tolist()):
        size = (hidden_size * width + 7) // 8
        codes_ND[row] = unpack_bits(packed[at : at + size], width, hidden_size) if width else 0
        at += size
    return codes_ND


def uniform_codes(
    hidden_ND: F32Array, tau_bits: int, bits: int, symmetric: bool
) -> tuple[F32Array, U8Array, U8Array, int]:
    """(scales, zero points, codes [N, D], number of values split off)."""
    below_ND = below(hidden_ND, tau_bits)
    if symmetric:
        top = 2 ** (bits - 1) - 1
        scales_N = (np.abs(below_ND).max(axis=1, initial=_ZERO) / np.float32(top)).astype(np.float32)
        lowest_N, zeros_N = np.full(scales_N.size, -top), np.zeros(scales_N.size, np.int64)
    else:
        top = 2**bits - 1
        lows_N, highs_N = below_ND.min(axis=1, initial=_ZERO), below_ND.max(axis=1, initial=_ZERO)
        scales_N = (highs_N / np.float32(top) - lows_N / np.float32(top) + _ZERO).astype(np.float32)
        zeros_N = np.minimum(np.rint(-lows_N / np.where(scales_N > 0, scales_N, _ONE)), top).astype(np.int64)
        lowest_N = -zeros_N
    divisor_N = np.where(scales_N > 0, scales_N, _ONE)
    signed_ND = np.rint(below_ND / divisor_N[:, None]).astype(np.int64)
    highest_N = top - zeros_N
    signed_ND = np.clip(signed_ND, lowest_N[:, None], highest_N[:, None])
    codes_ND = ((signed_ND + zeros_N[:, None]) & (2**bits - 1)).astype(np.uint8)
    return scales_N, zeros_N.astype(np.uint8), codes_ND, num_above(hidden_ND, tau_bits)


def uniform_values(scales_N: F32Array, zeros_N: U8Array, codes_ND: U8Array, bits: int, symmetric: bool) -> F32Array:
    """Values scale (code - zero point)."""
    if symmetric:
        half = 2 ** (bits - 1)
        signed_ND = (codes_ND.astype(np.int64) ^ half) - half
    else:
        signed_ND = codes_ND.astype(np.int64) - zeros_N[:, None]
    with np.errstate(over="ignore"):  # a forged scale may be anything finite
        values_ND: F32Array = scales_N[:, None] * signed_ND.astype(np.float32)
        return values_ND


def fp8_codes(hidden_ND: F32Array, tau_bits: int) -> tuple[F32Array, U8Array, int]:
    """(scales, E4M3 codes [N, D], number of values split off); a row's peak becomes the largest number, 448."""
    below_ND = below(hidden_ND, tau_bits)
    scales_N = (np.abs(below_ND).max(axis=1, initial=_ZERO) / LARGEST_E4M3).astype(np.float32)
    divisor_N = np.where(scales_N > 0, scales_N, _ONE)
    scaled_ND = np.clip(below_ND / divisor_N[:, None], -LARGEST_E4M3, LARGEST_E4M3).astype(np.float32)
    return scales_N, _to_e4m3(scaled_ND), num_above(hidden_ND, tau_bits)


def fp8_values(scales_N: F32Array, codes_ND: U8Array) -> F32Array:
    with np.errstate(over="ignore"):
        values_ND: F32Array = scales_N[:, None] * E4M3[codes_ND]
        return values_ND


def _to_e4m3(values: F32Array) -> U8Array:
    """Sign, 4 exponent bits of bias 7, 3 mantissa bits, rounded to nearest even; |values| at most 448."""
    bits, magnitude = values.view(np.uint32), np.abs(values)
    rounded = (magnitude.view(np.uint32) + np.uint32(0x7FFFF) + (bits >> np.uint32(20) & np.uint32(1))) >> np.uint32(20)
    normal = rounded.astype(np.int64) - ((127 - 7) << 3)
    code = np.where(magnitude < _SMALLEST_NORMAL_E4M3, np.rint(magnitude * np.float32(512)), normal)
    return (code.astype(np.uint8) | (bits >> np.uint32(31) << np.uint32(7)).astype(np.uint8)).astype(np.uint8)


def _e4m3_values() -> F32Array:
    """The 256 numbers; codes 0x7F and 0xFF, NaN in the format, never leave an encoder and stand for 0 here."""
    code = np.arange(128)
    exponent, mantissa = code >> 3, code & 7
    value = np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10.0), mantissa * 2.0**-9)
    value[127] = 0
    return np.concatenate([value, -value]).astype(np.float32)


E4M3 = _e4m3_values()
