"""TAB-Q between a row's smallest and largest value, in plain NumPy; the compiled kernels give the same bits.

Formulas [our design]: docs/codecs.md. Shapes: N tokens, D hidden size.
"""

from __future__ import annotations

import numpy as np

from testbed.codecs.framing import F32Array, U8Array
from testbed.codecs.reference import (
    FULL_WIDTH,
    INT_L2,
    INT_MEAN,
    SMALLEST_SCALE,
    I64Array,
    TabqSetting,
    below,
    num_above,
)

_ZERO, _HALF = np.float32(0), np.float32(0.5)


def asymmetric_codes(
    hidden_ND: F32Array, tau_bits: int, setting: TabqSetting
) -> tuple[U8Array, F32Array, U8Array, U8Array, int]:
    """(widths, scales, zero points, unsigned codes [N, D], number of values split off)."""
    num_tokens = hidden_ND.shape[0]
    widths_N, zeros_N = np.zeros(num_tokens, np.uint8), np.zeros(num_tokens, np.uint8)
    scales_N, codes_ND = np.zeros(num_tokens, np.float32), np.zeros(hidden_ND.shape, np.uint8)
    for row, below_D in enumerate(below(hidden_ND, tau_bits)):
        scale, zero, signed_D = signed_codes(below_D, FULL_WIDTH)
        if scale < SMALLEST_SCALE:
            continue
        width = signed_width(signed_D, zero, setting)
        if setting.requantise:
            scale, zero, signed_D = signed_codes(below_D, width)
            codes_D = signed_D + zero
        else:
            codes_D = signed_narrowed(signed_D, zero, width) + zero_at(zero, width)
        widths_N[row], scales_N[row], zeros_N[row], codes_ND[row] = width, scale, zero, codes_D
    return widths_N, scales_N, zeros_N, codes_ND, num_above(hidden_ND, tau_bits)


def signed_codes(below_D: F32Array, width: int) -> tuple[np.float32, int, I64Array]:
    """(scale, zero point, codes from -zero point to 2^width - 1 - zero point) of one row."""
    top = 2**width - 1
    low, high = below_D.min(initial=_ZERO), below_D.max(initial=_ZERO)
    scale = np.float32(high / np.float32(top) - low / np.float32(top))
    if scale < SMALLEST_SCALE:
        return scale, 0, np.zeros(below_D.size, np.int64)
    inverse = np.float32(np.float32(1) / scale)
    zero = min(int(np.floor(-low * inverse + _HALF)), top)
    signed_D = np.floor(below_D * inverse + _HALF).astype(np.int64)
    return scale, zero, np.clip(signed_D, -zero, top - zero)


def zero_at(zero: int, width: int) -> int:
    """The zero point among fewer codes."""
    k = FULL_WIDTH - width
    rounded, top = (zero + (1 << k >> 1)) >> k, (1 << width) - 1
    return min(rounded, top)


def signed_narrowed(signed_D: I64Array, zero: int, width: int) -> I64Array:
    """Codes at fewer bits: magnitudes to the nearest point of a grid around zero, as far as there are codes for it."""
    k, zero_b = FULL_WIDTH - width, zero_at(zero, width)
    magnitude_D = (np.abs(signed_D) + (1 << k >> 1)) >> k
    narrowed_D: I64Array = np.clip(np.sign(signed_D) * magnitude_D, -zero_b, 2**width - 1 - zero_b)
    return narrowed_D


def signed_width(signed_D: I64Array, zero: int, setting: TabqSetting) -> int:
    """b*: the smallest width that the test accepts, else the largest allowed."""
    for width in range(setting.qmin, setting.qmax):
        error_D = np.abs(signed_D - signed_narrowed(signed_D, zero, width) * (1 << (FULL_WIDTH - width)))
        if setting.test == INT_L2:
            accepted = float((error_D**2).sum()) <= setting.delta * setting.delta * float((signed_D**2).sum())
        elif setting.test == INT_MEAN:
            accepted = float(error_D.sum()) <= np.floor(setting.delta * signed_D.size)
        else:
            accepted = float(error_D.sum()) <= setting.delta * float(np.abs(signed_D).sum())
        if accepted:
            return width
    return setting.qmax


def asymmetric_values(
    widths_N: U8Array, scales_N: F32Array, zeros_N: U8Array, codes_ND: U8Array, requantised: bool
) -> F32Array:
    """Values s (c 2^k - sign(c) / 2) of signed codes c of fewer than 8 bits; s c at 8, and for requantised codes."""
    hidden_ND = np.zeros(codes_ND.shape, np.float32)
    for row, (width, zero) in enumerate(zip(widths_N.tolist(), zeros_N.tolist(), strict=True)):
        if width:
            k = 0 if requantised else FULL_WIDTH - width
            signed_D = codes_ND[row].astype(np.int64) - (zero if requantised else zero_at(zero, width))
            half_D = np.where(k > 0, np.sign(signed_D), 0).astype(np.float32) * _HALF
            with np.errstate(over="ignore"):  # a forged scale may be anything finite
                hidden_ND[row] = ((signed_D * (1 << k)).astype(np.float32) - half_D) * scales_N[row]
    return hidden_ND
