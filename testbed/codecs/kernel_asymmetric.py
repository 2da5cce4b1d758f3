"""TAB-Q between a row's smallest and largest value, compiled: the same as its namesakes in reference_asymmetric.py.

Kernels call kernels of this file only: numba's cache on disk notices a change of the file that a kernel stands in, and
of no other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.codecs.framing import F32Array, U8Array, U32Array
from testbed.codecs.kernel_compile import compiled
from testbed.codecs.reference import INT_L2, INT_MEAN, TabqSetting

I16Array = npt.NDArray[np.int16]
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_SMALLEST_SCALE = np.float32(2.0**-126)
_ZERO, _HALF = np.float32(0), np.float32(0.5)
_FULL = 8


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
def _fill_signed(below_D: F32Array, inverse: np.float32, zero: int, top: int, signed_D: I16Array) -> None:
    lowest, highest = np.float32(-zero), np.float32(top - zero)
    for at in range(below_D.size):
        nearest = np.floor(np.float32(below_D[at] * inverse) + _HALF)
        signed_D[at] = np.int16(min(max(nearest, lowest), highest))


@compiled
def _zero_of(low: np.float32, inverse: np.float32, top: int) -> int:
    return int(min(np.floor(np.float32(-low * inverse) + _HALF), np.float32(top)))


@compiled
def _zero_at(zero: int, width: int) -> int:
    k = _FULL - width
    return int(min((zero + (1 << k >> 1)) >> k, (1 << width) - 1))


@compiled
def _distortion(signed_D: I16Array, zero: int, width: int, squared: bool) -> np.uint32:
    k = np.int32(_FULL - width)
    half, most_below = np.int32(np.int32(1) << k >> np.int32(1)), np.int32(_zero_at(zero, width))
    most_above = np.int32(np.int32((1 << width) - 1) - most_below)
    found = np.uint32(0)
    for at in range(signed_D.size):
        signed = np.int32(signed_D[at])
        magnitude = np.int32(abs(signed))
        code = min(np.int32(np.int32(magnitude + half) >> k), most_below if signed < 0 else most_above)
        error = np.uint32(abs(np.int32(magnitude - np.int32(code << k))))
        found = np.uint32(found + (np.uint32(error * error) if squared else error))
    return found


@compiled
def _chosen_width(signed_D: I16Array, zero: int, setting: TabqSetting) -> int:
    """b*: distortion rises with the bits dropped, so bisection finds what trying every width would."""
    squared, total = setting.test == INT_L2, np.uint32(0)
    for at in range(signed_D.size):
        magnitude = np.uint32(abs(np.int32(signed_D[at])))
        total = np.uint32(total + (np.uint32(magnitude * magnitude) if squared else magnitude))
    if squared:
        limit = setting.delta * setting.delta * np.float64(total)
    elif setting.test == INT_MEAN:
        limit = np.floor(setting.delta * signed_D.size)
    else:
        limit = setting.delta * np.float64(total)
    low, high = setting.qmin, setting.qmax
    while low < high:
        middle = (low + high) >> 1
        if np.float64(_distortion(signed_D, zero, middle, squared)) <= limit:
            high = middle
        else:
            low = middle + 1
    return low


@compiled
def _fill_codes(signed_D: I16Array, zero: int, width: int, codes_D: U8Array) -> None:
    k = np.int32(_FULL - width)
    half, most_below = np.int32(np.int32(1) << k >> np.int32(1)), np.int32(_zero_at(zero, width))
    most_above = np.int32(np.int32((1 << width) - 1) - most_below)
    for at in range(signed_D.size):
        signed = np.int32(signed_D[at])
        code = min(np.int32(np.int32(np.int32(abs(signed)) + half) >> k), most_below if signed < 0 else most_above)
        codes_D[at] = np.uint8(most_below + (-code if signed < 0 else code))


@compiled
def _codes(
    hidden_ND: F32Array,
    tau: np.uint32,
    setting: TabqSetting,
    widths_N: U8Array,
    scales_N: F32Array,
    zeros_N: U8Array,
    codes_ND: U8Array,
) -> int:
    bits_ND, num_above, full_top = hidden_ND.view(np.uint32), 0, (1 << _FULL) - 1
    below_D, signed_D = np.empty(hidden_ND.shape[1], np.float32), np.empty(hidden_ND.shape[1], np.int16)
    for row in range(hidden_ND.shape[0]):
        low, high = _fill_below(hidden_ND[row], bits_ND[row], tau, below_D)
        num_above += _count_above(bits_ND[row], tau)
        scale = high / np.float32(full_top) - low / np.float32(full_top)
        widths_N[row], scales_N[row], zeros_N[row] = 0, 0, 0
        if scale < _SMALLEST_SCALE:
            codes_ND[row] = np.uint8(0)
            continue
        inverse = np.float32(1) / scale
        zero = _zero_of(low, inverse, full_top)
        _fill_signed(below_D, inverse, zero, full_top, signed_D)
        width = _chosen_width(signed_D, zero, setting)
        if setting.requantise and width < _FULL:
            top = (1 << width) - 1
            scale = high / np.float32(top) - low / np.float32(top)
            inverse = np.float32(1) / scale
            zero = _zero_of(low, inverse, top)
            _fill_signed(below_D, inverse, zero, top, signed_D)
            for at in range(signed_D.size):
                codes_ND[row, at] = np.uint8(np.int32(signed_D[at]) + np.int32(zero))
        else:
            _fill_codes(signed_D, zero, width, codes_ND[row])
        widths_N[row], scales_N[row], zeros_N[row] = width, scale, zero
    return num_above


def asymmetric_codes(
    hidden_ND: F32Array, tau_bits: int, setting: TabqSetting
) -> tuple[U8Array, F32Array, U8Array, U8Array, int]:
    num_tokens = hidden_ND.shape[0]
    widths_N, zeros_N = np.empty(num_tokens, np.uint8), np.empty(num_tokens, np.uint8)
    scales_N, codes_ND = np.empty(num_tokens, np.float32), np.empty(hidden_ND.shape, np.uint8)
    num_above = _codes(hidden_ND, np.uint32(tau_bits), setting, widths_N, scales_N, zeros_N, codes_ND)
    return widths_N, scales_N, zeros_N, codes_ND, num_above


@compiled
def _values(
    widths_N: U8Array,
    scales_N: F32Array,
    zeros_N: U8Array,
    codes_ND: U8Array,
    requantised: bool,
    hidden_ND: F32Array,
) -> None:
    for row in range(codes_ND.shape[0]):
        codes_D, values_D, scale, width = codes_ND[row], hidden_ND[row], scales_N[row], int(widths_N[row])
        if width == 0:
            values_D[:] = _ZERO
            continue
        shift = np.int32(0 if requantised else _FULL - width)
        zero = np.int32(int(zeros_N[row]) if requantised else _zero_at(int(zeros_N[row]), width))
        half = _HALF if shift > 0 else _ZERO
        for at in range(codes_D.size):
            signed = np.int32(np.int32(codes_D[at]) - zero)
            middle = (half if signed > 0 else -half) if signed != 0 else _ZERO
            values_D[at] = np.float32(np.float32(np.int32(signed * np.int32(np.int32(1) << shift))) - middle) * scale


def asymmetric_values(
    widths_N: U8Array, scales_N: F32Array, zeros_N: U8Array, codes_ND: U8Array, requantised: bool
) -> F32Array:
    hidden_ND = np.empty(codes_ND.shape, np.float32)
    _values(widths_N, scales_N, zeros_N, codes_ND, requantised, hidden_ND)
    return hidden_ND
