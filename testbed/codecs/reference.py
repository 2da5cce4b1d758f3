"""The codecs' arithmetic in plain NumPy, written from the formulas; the compiled kernels give the same bits.

Formulas [our design, where the published method gives only names]: docs/codecs.md. Shapes: N tokens, D hidden size,
M sparse values. Used by tests as the oracle and, where numba is not installed, in place of the kernels.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from testbed.codecs.framing import F32Array, U8Array, U32Array

U16Array = npt.NDArray[np.uint16]
I64Array = npt.NDArray[np.int64]

MAGNITUDE = np.uint32(0x7FFFFFFF)
_INFINITY = 0x7F800000
SMALLEST_SCALE = np.float32(2.0**-126)
FULL_WIDTH = 8
STRIPES = 8
INT_L2, INT_MEAN, INT_REL = 0, 1, 2
RANS_BITS = 12  # probabilities are multiples of 2^-12
RANS_LOW = 1 << 31  # states lie in [2^31, 2^63) and shed 32 bits at a time
RANS_LANES = 4  # states of a stream, unless it is short


class TabqSetting(NamedTuple):
    """The distortion test with its tolerance, the widths to choose from, and whether b* bits get codes of their own."""

    test: int
    delta: float
    qmin: int
    qmax: int
    requantise: bool = False


def stripe_bytes(hidden_size: int) -> int:
    return -(-hidden_size // STRIPES)


def crc32c(data: U8Array, crc: int) -> int:
    """CRC-32C (Castagnoli) continued from `crc`, which is 0 at first."""
    table, crc = _crc_table(), crc ^ 0xFFFFFFFF
    for byte in data.tobytes():
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@cache
def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return table


def gather(bits_ND: U32Array, tau_bits: int) -> tuple[U32Array, U32Array, U32Array]:
    """(count of each row, columns, bits) of the values at or above the threshold, and of NaN and infinity."""
    above_ND = (bits_ND & MAGNITUDE) >= tau_bits
    _, columns_M = np.nonzero(above_ND)
    return above_ND.sum(axis=1).astype(np.uint32), columns_M.astype(np.uint32), bits_ND[above_ND]


def scatter(bits_ND: U32Array, counts_N: U32Array, columns_M: U32Array, values_M: U32Array, tau_bits: int) -> bool:
    """Write sparse values into place; False, with rows partly written, for what `gather` can't have found."""
    if ((values_M & MAGNITUDE) < tau_bits).any():
        return False
    ends = np.cumsum(counts_N, dtype=np.int64)
    for row, (count, end) in enumerate(zip(counts_N, ends, strict=True)):
        columns = columns_M[end - count : end].astype(np.int64)
        if (columns >= bits_ND.shape[1]).any() or (np.diff(columns) <= 0).any():
            return False
        bits_ND[row, columns] = values_M[end - count : end]
    return True


def ranked_magnitude(bits_ND: U32Array, quantile: float) -> int:
    """Bits of the smallest finite magnitude that this share of them lies before; infinity's where there is none."""
    magnitudes = (bits_ND & MAGNITUDE)[(bits_ND & MAGNITUDE) < _INFINITY]
    rank = int(np.ceil(quantile * magnitudes.size))
    return int(np.partition(magnitudes, rank)[rank]) if rank < magnitudes.size else _INFINITY


def pack_bits(values: U32Array, width: int) -> U8Array:
    """`width` bits of each value, lowest first, end to end; the last byte is filled with zeros."""
    bits = (values[:, None] >> np.arange(width, dtype=np.uint32)) & np.uint32(1)
    return np.packbits(bits.astype(np.uint8).ravel(), bitorder="little")


def unpack_bits(packed: U8Array, width: int, count: int) -> U32Array:
    bits = np.unpackbits(packed, bitorder="little", count=count * width).reshape(count, width)
    values: U32Array = (bits.astype(np.uint32) << np.arange(width, dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
    return values


def pack_stripes(codes_D: U8Array, width: int) -> U8Array:
    """Values p, p + w, ..., p + 7 w are `width` bytes, lowest bits first; byte t of every p lies in plane t."""
    w = stripe_bytes(codes_D.size)
    padded = np.zeros(STRIPES * w, np.uint8)
    padded[: codes_D.size] = codes_D
    bits = padded.reshape(STRIPES, w).T[:, :, None] >> np.arange(width, dtype=np.uint8) & np.uint8(1)
    return np.packbits(bits.reshape(w, STRIPES * width), axis=1, bitorder="little").T.reshape(-1).copy()


def unpack_stripes(planes: U8Array, width: int, hidden_size: int) -> U8Array:
    w = stripe_bytes(hidden_size)
    bits = np.unpackbits(planes.reshape(width, w).T, axis=1, bitorder="little").reshape(w, STRIPES, width)
    codes: U8Array = (bits << np.arange(width, dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
    return codes.T.reshape(-1)[:hidden_size]


def reference_codes(below_D: F32Array, width: int = FULL_WIDTH) -> tuple[np.float32, U8Array]:
    """(scale, codes) of one row's magnitudes; scale 0 for a row of zeros, and of values too small for one."""
    magnitude_D, top = np.abs(below_D), np.float32(2**width - 1)
    peak = magnitude_D.max(initial=np.float32(0))
    if np.float32(peak / np.float32(255)) < SMALLEST_SCALE:
        return np.float32(0), np.zeros(below_D.size, np.uint8)
    inverse = np.float32(top / peak)
    codes_D = np.floor(magnitude_D * inverse + np.float32(0.5))
    return np.float32(peak / top), np.minimum(codes_D, top).astype(np.uint8)


def narrowed(codes_D: U8Array, width: int) -> U8Array:
    """Codes at fewer bits: the nearest point of a grid that contains the coarser ones."""
    k = FULL_WIDTH - width
    if k == 0:
        return codes_D
    rounded = (codes_D.astype(np.int64) + (1 << (k - 1))) >> k
    grid: U8Array = np.minimum(rounded, (1 << width) - 1).astype(np.uint8)
    return grid


def accepts(codes_D: U8Array, width: int, test: int, delta: float) -> bool:
    """Whether this width distorts a row by no more than the tolerance allows."""
    codes = codes_D.astype(np.int64)
    error = codes - (narrowed(codes_D, width).astype(np.int64) << (FULL_WIDTH - width))
    if test == INT_L2:
        return bool(float((error**2).sum()) <= delta * delta * float((codes**2).sum()))
    if test == INT_MEAN:
        return bool(float(np.abs(error).sum()) <= np.floor(delta * codes.size))
    return bool(float(np.abs(error).sum()) <= delta * float(codes.sum()))


def chosen_width(codes_D: U8Array, setting: TabqSetting) -> int:
    """b*: the smallest width that the test accepts, else the largest allowed."""
    for width in range(setting.qmin, setting.qmax):
        if accepts(codes_D, width, setting.test, setting.delta):
            return width
    return setting.qmax


def _rows(hidden_ND: F32Array, tau_bits: int, setting: TabqSetting) -> tuple[list[int], list[np.float32], U8Array]:
    widths, scales, codes_ND = [], [], np.zeros(hidden_ND.shape, np.uint8)
    for row, below_D in enumerate(below(hidden_ND, tau_bits)):
        scale, codes_D = reference_codes(below_D)
        width = chosen_width(codes_D, setting) if scale > 0 else 0
        if width and setting.requantise:
            scale, codes_ND[row] = reference_codes(below_D, width)
        elif width:
            codes_ND[row] = narrowed(codes_D, width)
        widths.append(width)
        scales.append(scale)
    return widths, scales, codes_ND


def below(hidden_ND: F32Array, tau_bits: int) -> F32Array:
    """X_below: zero where a value is split off."""
    return np.where((hidden_ND.view(np.uint32) & MAGNITUDE) >= tau_bits, np.float32(0), hidden_ND)


def num_above(hidden_ND: F32Array, tau_bits: int) -> int:
    return int(np.count_nonzero((hidden_ND.view(np.uint32) & MAGNITUDE) >= tau_bits))


def tabq_pack(hidden_ND: F32Array, tau_bits: int, setting: TabqSetting) -> tuple[U8Array, F32Array, U8Array, int]:
    """(widths, scales, payload, number of values split off); a row's payload is its code planes, then its signs."""
    widths, scales, codes_ND = _rows(hidden_ND, tau_bits, setting)
    signs_ND = np.signbit(below(hidden_ND, tau_bits)).astype(np.uint8)
    parts = [np.empty(0, np.uint8)]
    for width, codes_D, signs_D in zip(widths, codes_ND, signs_ND, strict=True):
        if width:
            parts += [pack_stripes(codes_D, width), pack_stripes(signs_D, 1)]
    return (
        np.array(widths, np.uint8),
        np.array(scales, np.float32),
        np.concatenate(parts),
        num_above(hidden_ND, tau_bits),
    )


def values_of(
    codes_D: U8Array, negative_D: npt.NDArray[np.bool_], width: int, scale: np.float32, requantised: bool
) -> F32Array:
    """Values sign s c_hat, where c_hat is the mean of the 8-bit codes that a narrower code stands for.

    Of codes made at their own width it is the code.
    """
    k = 0 if requantised else FULL_WIDTH - width
    half = np.where((codes_D > 0) & (k > 0), np.float32(0.5), np.float32(0))
    centroid = (codes_D.astype(np.int64) << k).astype(np.float32) - half
    return centroid * np.where(negative_D, -scale, scale).astype(np.float32)


def tabq_unpack(
    widths_N: U8Array, scales_N: F32Array, payload: U8Array, hidden_size: int, requantised: bool = False
) -> F32Array:
    hidden_ND, at, w = np.zeros((widths_N.size, hidden_size), np.float32), 0, stripe_bytes(hidden_size)
    for row, (width, scale) in enumerate(zip(widths_N.tolist(), scales_N, strict=True)):
        if width:
            codes_D = unpack_stripes(payload[at : at + width * w], width, hidden_size)
            at += width * w
            negative_D = unpack_stripes(payload[at : at + w], 1, hidden_size).astype(bool)
            at += w
            hidden_ND[row] = values_of(codes_D, negative_D, width, scale, requantised)
    return hidden_ND


def tabq_symbols(
    hidden_ND: F32Array, tau_bits: int, setting: TabqSetting
) -> tuple[U8Array, F32Array, U8Array, U8Array, int]:
    """(widths, scales, symbols [N, D], sign planes, number of values split off).

    A symbol is the signed code plus 2^b - 1; at 8 bits, where that needs 511 symbols, the code, and a sign plane.
    """
    widths, scales, codes_ND = _rows(hidden_ND, tau_bits, setting)
    negative_ND = np.signbit(below(hidden_ND, tau_bits))
    symbols_ND, planes = np.zeros(hidden_ND.shape, np.uint8), [np.empty(0, np.uint8)]
    for row, width in enumerate(widths):
        if width == FULL_WIDTH:
            symbols_ND[row] = codes_ND[row]
            planes.append(pack_stripes(negative_ND[row].astype(np.uint8), 1))
        elif width:
            signed = np.where(negative_ND[row], -codes_ND[row].astype(np.int64), codes_ND[row])
            symbols_ND[row] = signed + (1 << width) - 1
    above = num_above(hidden_ND, tau_bits)
    return np.array(widths, np.uint8), np.array(scales, np.float32), symbols_ND, np.concatenate(planes), above


def tabq_values(
    widths_N: U8Array, scales_N: F32Array, symbols_ND: U8Array, planes: U8Array, requantised: bool = False
) -> F32Array:
    """The inverse of `tabq_symbols`. A symbol beyond its alphabet, in a forged message, decodes to some number."""
    hidden_ND, at, w = np.zeros(symbols_ND.shape, np.float32), 0, stripe_bytes(symbols_ND.shape[1])
    for row, (width, scale) in enumerate(zip(widths_N.tolist(), scales_N, strict=True)):
        if width == FULL_WIDTH:
            negative_D = unpack_stripes(planes[at : at + w], 1, symbols_ND.shape[1]).astype(bool)
            at += w
            hidden_ND[row] = values_of(symbols_ND[row], negative_D, width, scale, requantised)
        elif width:
            signed = symbols_ND[row].astype(np.int64) - ((1 << width) - 1)
            hidden_ND[row] = values_of(np.abs(signed).astype(np.uint8), signed < 0, width, scale, requantised)
    return hidden_ND
