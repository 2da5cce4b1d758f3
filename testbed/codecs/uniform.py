"""Symmetric uniform quantisation with one float32 scale per token: x = scale * code."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.codecs.framing import HEADER_BYTES, CodecError, F32Array, checked, frame, unframe

_SCALE_BYTES = 4
I8Array = npt.NDArray[np.int8]


def _quantise(hidden_ND: F32Array, largest_code: int) -> tuple[F32Array, I8Array]:
    """(scale [n], codes [n, d] in [-largest_code, largest_code]); |x - scale * code| <= scale / 2 up to rounding."""
    if not np.isfinite(hidden_ND).all():
        raise CodecError("uniform quantisation has no code for NaN or infinity")
    peak_N = np.abs(hidden_ND).max(axis=1, initial=0.0)
    scale_N = peak_N / np.float32(largest_code)
    divisor_N = np.where(scale_N > 0, scale_N, np.float32(1))
    codes_ND = np.clip(np.rint(hidden_ND / divisor_N[:, None]), -largest_code, largest_code)
    return scale_N.astype(np.float32), codes_ND.astype(np.int8)


def _dequantise(scale_N: F32Array, codes_ND: I8Array) -> F32Array:
    if not (np.isfinite(scale_N).all() and (scale_N >= 0).all()):
        raise CodecError("a scale is negative or not finite")
    return scale_N[:, None] * codes_ND.astype(np.float32)


class UniformInt8:
    """One byte a value, codes -127 to 127."""

    def encode(self, hidden_ND: F32Array) -> bytes:
        hidden_ND = checked(hidden_ND)
        scale_N, codes_ND = _quantise(hidden_ND, 127)
        return frame(hidden_ND, scale_N.astype("<f4").tobytes(), codes_ND.tobytes())

    def decode(self, message: bytes) -> F32Array:
        num_tokens, hidden_size, body = unframe(message, self)
        scale_N = np.frombuffer(body, "<f4", count=num_tokens)
        codes_ND = np.frombuffer(body, np.int8, offset=_SCALE_BYTES * num_tokens).reshape(num_tokens, hidden_size)
        return _dequantise(scale_N, codes_ND)

    def nbytes(self, num_tokens: int, hidden_size: int) -> int:
        return HEADER_BYTES + num_tokens * (_SCALE_BYTES + hidden_size)


class UniformInt4:
    """Two values a byte, codes -7 to 7; the first value of a pair is the low nibble."""

    def encode(self, hidden_ND: F32Array) -> bytes:
        hidden_ND = checked(hidden_ND)
        scale_N, codes_ND = _quantise(hidden_ND, 7)
        if codes_ND.shape[1] % 2:
            codes_ND = np.pad(codes_ND, ((0, 0), (0, 1)))
        nibbles_ND = (codes_ND & 0x0F).astype(np.uint8)
        packed = nibbles_ND[:, 0::2] | (nibbles_ND[:, 1::2] << 4)
        return frame(hidden_ND, scale_N.astype("<f4").tobytes(), packed.tobytes())

    def decode(self, message: bytes) -> F32Array:
        num_tokens, hidden_size, body = unframe(message, self)
        scale_N = np.frombuffer(body, "<f4", count=num_tokens)
        packed = np.frombuffer(body, np.int8, offset=_SCALE_BYTES * num_tokens)
        low, high = (packed << 4) >> 4, packed >> 4  # arithmetic shifts restore the sign
        codes = np.stack((low, high), axis=-1).reshape(num_tokens, 2 * ((hidden_size + 1) // 2))
        return _dequantise(scale_N, codes[:, :hidden_size])

    def nbytes(self, num_tokens: int, hidden_size: int) -> int:
        return HEADER_BYTES + num_tokens * (_SCALE_BYTES + (hidden_size + 1) // 2)
