"""TAB-Q encoding, compiled: the same as its namesakes in reference.py.

A row's codes and signs are held as eight stripes of S bytes, S a multiple of 8, so that packing moves eight values at
once. On the wire a stripe has w = ceil(D / 8) bytes. Kernels call kernels of this file only: numba's cache on disk
notices a change of the file that a kernel stands in, and of no other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.codecs.framing import F32Array, U8Array, U32Array
from testbed.codecs.kernel_compile import compiled
from testbed.codecs.reference import INT_L2, INT_MEAN, TabqSetting

U64Array = npt.NDArray[np.uint64]
_MAGNITUDE, _SIGN = np.uint32(0x7FFFFFFF), np.uint32(31)
_BYTES = np.uint64(0x0101010101010101)  # a byte's value in each of eight
_SMALLEST_SCALE = np.float32(2.0**-126)
_FULL = 8


@compiled
def _peak_bits(bits_D: U32Array, tau: np.uint32) -> tuple[np.uint32, np.uint32]:
    """(bits of the largest magnitude below the threshold, number of values at or above it)."""
    peak, above = np.uint32(0), np.uint32(0)
    for at in range(bits_D.size):
        magnitude = np.uint32(bits_D[at] & _MAGNITUDE)
        above = np.uint32(above + np.uint32(magnitude >= tau))
        magnitude = np.uint32(0) if magnitude >= tau else magnitude
        peak = max(peak, magnitude)
    return peak, above


@compiled
def _fill_codes(
    row_D: F32Array, bits_D: U32Array, tau: np.uint32, inverse: np.float32, codes: U8Array, signs: U8Array
) -> None:
    """8-bit codes and sign bits of X_below, stripe by stripe; what fills a stripe up stays 0."""
    w, stride = -(-row_D.size // 8), codes.size // 8
    for stripe in range(8):
        start, stop = min(stripe * w, row_D.size), min(stripe * w + w, row_D.size)
        values, bits = row_D[start:stop], bits_D[start:stop]
        to_codes = codes[stripe * stride : stripe * stride + stop - start]
        to_signs = signs[stripe * stride : stripe * stride + stop - start]
        for at in range(values.size):
            is_below = (bits[at] & _MAGNITUDE) < tau
            magnitude = abs(values[at]) if is_below else np.float32(0)
            to_codes[at] = np.uint8(np.int32(magnitude * inverse + np.float32(0.5)))
            to_signs[at] = np.uint8(bits[at] >> _SIGN) if is_below else np.uint8(0)


@compiled
def _squares(codes: U8Array) -> np.uint32:
    """Sum of c^2: at most 65,535 times 255^2, which 32 bits hold."""
    found = np.uint32(0)
    for code in codes:
        found = np.uint32(found + np.uint32(code) * np.uint32(code))
    return found


@compiled
def _total(codes: U8Array) -> np.uint32:
    found = np.uint32(0)
    for code in codes:
        found = np.uint32(found + np.uint32(code))
    return found


@compiled
def _fill_errors(codes: U8Array, k: int, errors: U8Array) -> None:
    """|c - c_b 2^k|, in bytes throughout: that is what lets the loop run on whole vectors."""
    half, grid = np.uint8(1 << (k - 1)), np.uint8(256 - (1 << k))  # grid: its highest point, and its mask
    for at in range(codes.size):
        code = codes[at]
        nearest = np.uint8(np.uint8(code + half) & grid)
        nearest = grid if code >= np.uint8(grid + half) else nearest
        errors[at] = np.uint8(code - nearest) if code > nearest else np.uint8(nearest - code)


@compiled
def _chosen_width(codes: U8Array, errors: U8Array, hidden_size: int, setting: TabqSetting) -> int:
    """b*: distortion rises with the bits dropped, so bisection finds what trying every width would."""
    if setting.test == INT_L2:
        limit = setting.delta * setting.delta * np.float64(_squares(codes))
    elif setting.test == INT_MEAN:
        limit = np.floor(setting.delta * hidden_size)
    else:
        limit = setting.delta * np.float64(_total(codes))
    low, high = _FULL - setting.qmax, _FULL - setting.qmin
    while low < high:
        middle = (low + high + 1) >> 1
        _fill_errors(codes, middle, errors)
        distortion = _squares(errors) if setting.test == INT_L2 else _total(errors)
        if np.float64(distortion) <= limit:
            low = middle
        else:
            high = middle - 1
    return _FULL - low


@compiled
def _narrow(codes: U8Array, width: int) -> None:
    k = _FULL - width
    if k == 0:
        return
    half, top, shift = np.int32(1 << (k - 1)), np.int32((1 << width) - 1), np.int32(k)
    for at in range(codes.size):
        codes[at] = np.uint8(min(np.int32(np.int32(np.int32(codes[at]) + half) >> shift), top))


@compiled
def _pack_planes(codes: U64Array, planes: U64Array, width: int) -> None:
    """Eight stripes of words to `width` planes: stripe j is bits j b ... j b + b - 1 of the bytes above each other."""
    words = codes.size // 8
    for plane in range(width):
        out = planes[plane * words : (plane + 1) * words]
        out[:] = 0
        for stripe in range(8 * plane // width, (8 * plane + 7) // width + 1):
            source, low = codes[stripe * words : (stripe + 1) * words], stripe * width - 8 * plane
            if low >= 0:
                mask, shift = np.uint64((1 << min(width, 8 - low)) - 1) * _BYTES, np.uint64(low)
                for at in range(words):
                    out[at] |= (source[at] & mask) << shift
            else:
                mask, shift = np.uint64((1 << (width + low)) - 1) * _BYTES, np.uint64(-low)
                for at in range(words):
                    out[at] |= (source[at] >> shift) & mask


@compiled
def _coded_row(
    row_D: F32Array,
    bits_D: U32Array,
    tau: np.uint32,
    peak: np.float32,
    setting: TabqSetting,
    codes: U8Array,
    signs: U8Array,
    scratch: U8Array,
) -> int:
    """The width of a row that has something below the threshold; its codes are left in `codes` at that width."""
    _fill_codes(row_D, bits_D, tau, np.float32(255) / peak, codes, signs)
    width = _chosen_width(codes, scratch, row_D.size, setting)
    if setting.requantise:
        _fill_codes(row_D, bits_D, tau, np.float32((1 << width) - 1) / peak, codes, signs)
    else:
        _narrow(codes, width)
    return width


@compiled
def _scale(peak: np.float32, width: int, setting: TabqSetting) -> np.float32:
    return peak / np.float32((1 << width) - 1 if setting.requantise else 255)


@compiled
def _put(planes: U8Array, num_planes: int, payload: U8Array, at: int, w: int) -> int:
    """Copy planes without what fills them up to whole words; the place behind them."""
    stride = planes.size // 8
    for plane in range(num_planes):
        payload[at : at + w] = planes[plane * stride : plane * stride + w]
        at += w
    return at


@compiled
def _pack(
    hidden_ND: F32Array, tau: np.uint32, setting: TabqSetting, widths_N: U8Array, scales_N: F32Array, payload: U8Array
) -> tuple[int, int]:
    """(bytes of payload, values split off)."""
    bits_ND, w, at, num_above = hidden_ND.view(np.uint32), -(-hidden_ND.shape[1] // 8), 0, 0
    room = (w + 7) // 8 * 64
    codes, signs, planes = np.zeros(room, np.uint8), np.zeros(room, np.uint8), np.zeros(room, np.uint8)
    codes64, signs64, planes64 = codes.view(np.uint64), signs.view(np.uint64), planes.view(np.uint64)
    peak_word = np.zeros(1, np.uint32)
    for row in range(hidden_ND.shape[0]):
        peak_word[0], above = _peak_bits(bits_ND[row], tau)
        peak = peak_word.view(np.float32)[0]
        num_above += int(above)
        widths_N[row], scales_N[row] = 0, 0
        if peak / np.float32(255) < _SMALLEST_SCALE:
            continue
        width = _coded_row(hidden_ND[row], bits_ND[row], tau, peak, setting, codes, signs, planes)
        widths_N[row], scales_N[row] = width, _scale(peak, width, setting)
        _pack_planes(codes64, planes64, width)
        at = _put(planes, width, payload, at, w)
        _pack_planes(signs64, planes64, 1)
        at = _put(planes, 1, payload, at, w)
    return at, num_above


def tabq_pack(hidden_ND: F32Array, tau_bits: int, setting: TabqSetting) -> tuple[U8Array, F32Array, U8Array, int]:
    num_tokens, hidden_size = hidden_ND.shape
    widths_N, scales_N = np.empty(num_tokens, np.uint8), np.empty(num_tokens, np.float32)
    payload = np.empty(num_tokens * (setting.qmax + 1) * -(-hidden_size // 8), np.uint8)
    used, num_above = _pack(hidden_ND, np.uint32(tau_bits), setting, widths_N, scales_N, payload)
    return widths_N, scales_N, payload[:used], num_above


@compiled
def _fill_symbols(symbols_D: U8Array, codes: U8Array, signs: U8Array, width: int) -> None:
    w, stride, offset = -(-symbols_D.size // 8), codes.size // 8, np.int32((1 << width) - 1)
    for stripe in range(8):
        start, stop = min(stripe * w, symbols_D.size), min(stripe * w + w, symbols_D.size)
        out = symbols_D[start:stop]
        some_codes = codes[stripe * stride : stripe * stride + stop - start]
        some_signs = signs[stripe * stride : stripe * stride + stop - start]
        for at in range(out.size):
            code = np.int32(some_codes[at])
            out[at] = np.uint8(offset + (-code if some_signs[at] else code))


@compiled
def _symbols(
    hidden_ND: F32Array,
    tau: np.uint32,
    setting: TabqSetting,
    widths_N: U8Array,
    scales_N: F32Array,
    symbols_ND: U8Array,
    sign_planes: U8Array,
) -> tuple[int, int]:
    """(bytes of sign planes, values split off)."""
    bits_ND, w, at, num_above = hidden_ND.view(np.uint32), -(-hidden_ND.shape[1] // 8), 0, 0
    room = (w + 7) // 8 * 64
    codes, signs, planes = np.zeros(room, np.uint8), np.zeros(room, np.uint8), np.zeros(room, np.uint8)
    unsigned, peak_word = np.zeros(room, np.uint8), np.zeros(1, np.uint32)
    signs64, planes64 = signs.view(np.uint64), planes.view(np.uint64)
    for row in range(hidden_ND.shape[0]):
        peak_word[0], above = _peak_bits(bits_ND[row], tau)
        peak = peak_word.view(np.float32)[0]
        num_above += int(above)
        widths_N[row], scales_N[row] = 0, 0
        if peak / np.float32(255) < _SMALLEST_SCALE:
            symbols_ND[row] = np.uint8(0)
            continue
        width = _coded_row(hidden_ND[row], bits_ND[row], tau, peak, setting, codes, signs, planes)
        widths_N[row], scales_N[row] = width, _scale(peak, width, setting)
        if width < _FULL:
            _fill_symbols(symbols_ND[row], codes, signs, width)
        else:
            _fill_symbols(symbols_ND[row], codes, unsigned, 0)
            _pack_planes(signs64, planes64, 1)
            at = _put(planes, 1, sign_planes, at, w)
    return at, num_above


def tabq_symbols(
    hidden_ND: F32Array, tau_bits: int, setting: TabqSetting
) -> tuple[U8Array, F32Array, U8Array, U8Array, int]:
    num_tokens, hidden_size = hidden_ND.shape
    widths_N, scales_N = np.empty(num_tokens, np.uint8), np.empty(num_tokens, np.float32)
    symbols_ND = np.empty((num_tokens, hidden_size), np.uint8)
    planes = np.empty(num_tokens * -(-hidden_size // 8), np.uint8)
    used, num_above = _symbols(hidden_ND, np.uint32(tau_bits), setting, widths_N, scales_N, symbols_ND, planes)
    return widths_N, scales_N, symbols_ND, planes[:used], num_above
