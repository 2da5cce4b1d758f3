"""TAB-Q decoding, compiled: the same as its namesakes in reference.py. Layout and rules as in kernel_encode.py."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.codecs.framing import F32Array, U8Array
from testbed.codecs.kernel_compile import compiled

U64Array = npt.NDArray[np.uint64]
_BYTES = np.uint64(0x0101010101010101)  # a byte's value in each of eight
_FULL = 8


@compiled
def _unpack_planes(planes: U64Array, codes: U64Array, width: int) -> None:
    words = codes.size // 8
    for stripe in range(8):
        out = codes[stripe * words : (stripe + 1) * words]
        out[:] = 0
        for plane in range(stripe * width // 8, (stripe * width + width - 1) // 8 + 1):
            source, low = planes[plane * words : (plane + 1) * words], stripe * width - 8 * plane
            if low >= 0:
                mask, shift = np.uint64((1 << min(width, 8 - low)) - 1) * _BYTES, np.uint64(low)
                for at in range(words):
                    out[at] |= (source[at] >> shift) & mask
            else:
                mask, shift = np.uint64((1 << (width + low)) - 1) * _BYTES, np.uint64(-low)
                for at in range(words):
                    out[at] |= (source[at] & mask) << shift


@compiled
def _fill_values(
    row_D: F32Array, codes: U8Array, signs: U8Array, width: int, scale: np.float32, requantised: bool
) -> None:
    """Values sign s c_hat of striped codes."""
    w, stride, shift = -(-row_D.size // 8), codes.size // 8, np.int32(0 if requantised else _FULL - width)
    half = np.float32(0.5) if shift > 0 else np.float32(0)
    for stripe in range(8):
        start, stop = min(stripe * w, row_D.size), min(stripe * w + w, row_D.size)
        values = row_D[start:stop]
        some_codes = codes[stripe * stride : stripe * stride + stop - start]
        some_signs = signs[stripe * stride : stripe * stride + stop - start]
        for at in range(values.size):
            code = np.int32(some_codes[at])
            centroid = np.float32(np.int32(code << shift)) - (half if code > 0 else np.float32(0))
            values[at] = centroid * (-scale if some_signs[at] else scale)


@compiled
def _take(payload: U8Array, at: int, w: int, planes: U8Array, num_planes: int) -> int:
    """Copy planes to where each begins on a whole word; the place behind them."""
    stride = planes.size // 8
    for plane in range(num_planes):
        planes[plane * stride : plane * stride + w] = payload[at : at + w]
        at += w
    return at


@compiled
def _unpack(widths_N: U8Array, scales_N: F32Array, payload: U8Array, requantised: bool, hidden_ND: F32Array) -> None:
    w, at = -(-hidden_ND.shape[1] // 8), 0
    room = (w + 7) // 8 * 64
    codes, signs, planes = np.zeros(room, np.uint8), np.zeros(room, np.uint8), np.zeros(room, np.uint8)
    codes64, signs64, planes64 = codes.view(np.uint64), signs.view(np.uint64), planes.view(np.uint64)
    for row in range(hidden_ND.shape[0]):
        width = int(widths_N[row])
        if width == 0:
            hidden_ND[row] = np.float32(0)
            continue
        at = _take(payload, at, w, planes, width)
        _unpack_planes(planes64, codes64, width)
        at = _take(payload, at, w, planes, 1)
        _unpack_planes(planes64, signs64, 1)
        _fill_values(hidden_ND[row], codes, signs, width, scales_N[row], requantised)


def tabq_unpack(
    widths_N: U8Array, scales_N: F32Array, payload: U8Array, hidden_size: int, requantised: bool = False
) -> F32Array:
    hidden_ND = np.empty((widths_N.size, hidden_size), np.float32)
    _unpack(widths_N, scales_N, payload, requantised, hidden_ND)
    return hidden_ND


@compiled
def _fill_signed(row_D: F32Array, symbols_D: U8Array, width: int, scale: np.float32, requantised: bool) -> None:
    offset, shift = np.int32((1 << width) - 1), np.int32(0 if requantised else _FULL - width)
    half = np.float32(0) if requantised else np.float32(0.5)
    for at in range(row_D.size):
        signed = np.int32(np.int32(symbols_D[at]) - offset)
        code = np.int32(abs(signed))
        centroid = np.float32(np.int32(code << shift)) - (half if code > 0 else np.float32(0))
        row_D[at] = centroid * (-scale if signed < 0 else scale)


@compiled
def _fill_unsigned(row_D: F32Array, symbols_D: U8Array, signs: U8Array, scale: np.float32) -> None:
    w, stride = -(-row_D.size // 8), signs.size // 8
    for stripe in range(8):
        start, stop = min(stripe * w, row_D.size), min(stripe * w + w, row_D.size)
        values, codes = row_D[start:stop], symbols_D[start:stop]
        some_signs = signs[stripe * stride : stripe * stride + stop - start]
        for at in range(values.size):
            values[at] = np.float32(codes[at]) * (-scale if some_signs[at] else scale)


@compiled
def _values(
    widths_N: U8Array,
    scales_N: F32Array,
    symbols_ND: U8Array,
    sign_planes: U8Array,
    requantised: bool,
    hidden_ND: F32Array,
) -> None:
    w, at = -(-hidden_ND.shape[1] // 8), 0
    room = (w + 7) // 8 * 64
    signs, planes = np.zeros(room, np.uint8), np.zeros(room, np.uint8)
    for row in range(hidden_ND.shape[0]):
        width = int(widths_N[row])
        if width == 0:
            hidden_ND[row] = np.float32(0)
        elif width < _FULL:
            _fill_signed(hidden_ND[row], symbols_ND[row], width, scales_N[row], requantised)
        else:
            at = _take(sign_planes, at, w, planes, 1)
            _unpack_planes(planes.view(np.uint64), signs.view(np.uint64), 1)
            _fill_unsigned(hidden_ND[row], symbols_ND[row], signs, scales_N[row])


def tabq_values(
    widths_N: U8Array, scales_N: F32Array, symbols_ND: U8Array, planes: U8Array, requantised: bool = False
) -> F32Array:
    hidden_ND = np.empty(symbols_ND.shape, np.float32)
    _values(widths_N, scales_N, symbols_ND, planes, requantised, hidden_ND)
    return hidden_ND
