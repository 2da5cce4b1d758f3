"""Uniform quantisation with one float32 scale per token: x = scale * code."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.codecs.framing import F32Array, U8Array
from testbed.codecs.stages import FixedStage

I8Array = npt.NDArray[np.int8]
_LARGEST_E4M3 = np.float32(448)
_SMALLEST_NORMAL = np.float32(2.0**-6)


def _scales(below_ND: F32Array, largest: np.float32) -> tuple[F32Array, F32Array]:
    """(scale [n], the same with 1 for 0) such that a row's largest magnitude becomes `largest`."""
    scale_N = np.abs(below_ND).max(axis=1, initial=0.0) / largest
    return scale_N.astype(np.float32), np.where(scale_N > 0, scale_N, np.float32(1))


def _quantise(below_ND: F32Array, largest_code: int) -> tuple[F32Array, I8Array]:
    """(scale [n], codes [n, d] in [-largest_code, largest_code]); |x - scale * code| <= scale / 2 up to rounding."""
    scale_N, divisor_N = _scales(below_ND, np.float32(largest_code))
    codes_ND = np.clip(np.rint(below_ND / divisor_N[:, None]), -largest_code, largest_code)
    return scale_N, codes_ND.astype(np.int8)


class Int8Stage(FixedStage):
    """One byte a value, codes -127 to 127."""

    stage_id = 3

    def row_nbytes(self, hidden_size: int) -> int:
        return hidden_size

    def code(self, below_ND: F32Array) -> tuple[F32Array, U8Array]:
        scale_N, codes_ND = _quantise(below_ND, 127)
        payload: U8Array = codes_ND.reshape(-1).view(np.uint8)
        return scale_N, payload

    def values(self, scales_N: F32Array, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        return scales_N[:, None] * payload.view(np.int8).reshape(num_tokens, hidden_size).astype(np.float32)


class Int4Stage(FixedStage):
    """Two values a byte, codes -7 to 7; the first value of a pair is the low nibble."""

    stage_id = 4

    def row_nbytes(self, hidden_size: int) -> int:
        return (hidden_size + 1) // 2

    def code(self, below_ND: F32Array) -> tuple[F32Array, U8Array]:
        scale_N, codes_ND = _quantise(below_ND, 7)
        if codes_ND.shape[1] % 2:
            codes_ND = np.pad(codes_ND, ((0, 0), (0, 1)))
        nibbles_ND = (codes_ND & 0x0F).astype(np.uint8)
        packed_ND: U8Array = nibbles_ND[:, 0::2] | (nibbles_ND[:, 1::2] << np.uint8(4))
        return scale_N, packed_ND.reshape(-1)

    def values(self, scales_N: F32Array, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        packed = payload.view(np.int8)
        low, high = (packed << 4) >> 4, packed >> 4  # arithmetic shifts restore the sign
        codes = np.stack((low, high), axis=-1).reshape(num_tokens, 2 * self.row_nbytes(hidden_size))
        return scales_N[:, None] * codes[:, :hidden_size].astype(np.float32)


class Fp8Stage(FixedStage):
    """One byte a value: 8-bit floats E4M3 without infinities, scaled so that a row's peak is their largest, 448."""

    stage_id = 5

    def row_nbytes(self, hidden_size: int) -> int:
        return hidden_size

    def code(self, below_ND: F32Array) -> tuple[F32Array, U8Array]:
        scale_N, divisor_N = _scales(below_ND, _LARGEST_E4M3)
        scaled_ND = np.clip(below_ND / divisor_N[:, None], -_LARGEST_E4M3, _LARGEST_E4M3)
        return scale_N, _to_e4m3(scaled_ND.astype(np.float32)).reshape(-1)

    def values(self, scales_N: F32Array, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        return scales_N[:, None] * _E4M3[payload].reshape(num_tokens, hidden_size)


def _to_e4m3(values: F32Array) -> U8Array:
    """Sign, 4 exponent bits of bias 7, 3 mantissa bits, rounded to nearest even; |values| at most 448."""
    bits, magnitude = values.view(np.uint32), np.abs(values)
    rounded = (magnitude.view(np.uint32) + np.uint32(0x7FFFF) + (bits >> np.uint32(20) & np.uint32(1))) >> np.uint32(20)
    normal = rounded.astype(np.int64) - ((127 - 7) << 3)
    code = np.where(magnitude < _SMALLEST_NORMAL, np.rint(magnitude * np.float32(512)), normal)
    return (code.astype(np.uint8) | (bits >> np.uint32(31) << np.uint32(7)).astype(np.uint8)).astype(np.uint8)


def _e4m3_values() -> F32Array:
    """The 256 numbers; codes 0x7F and 0xFF, NaN in the format, never leave an encoder and stand for 0 here."""
    code = np.arange(128)
    exponent, mantissa = code >> 3, code & 7
    value = np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10.0), mantissa * 2.0**-9)
    value[127] = 0
    return np.concatenate([value, -value]).astype(np.float32)


_E4M3 = _e4m3_values()
