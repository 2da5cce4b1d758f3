"""Hidden states as they are, or rounded to a 16-bit format."""

from __future__ import annotations

import numpy as np

from testbed.codecs.framing import HEADER_BYTES, F32Array, checked, frame, unframe


class RawFloat32:
    """Four bytes a value, bit for bit."""

    def encode(self, hidden_ND: F32Array) -> bytes:
        hidden_ND = checked(hidden_ND)
        return frame(hidden_ND, hidden_ND.astype("<f4", copy=False).tobytes())

    def decode(self, message: bytes) -> F32Array:
        num_tokens, hidden_size, body = unframe(message, self)
        return np.frombuffer(body, "<f4").reshape(num_tokens, hidden_size).astype(np.float32)

    def nbytes(self, num_tokens: int, hidden_size: int) -> int:
        return HEADER_BYTES + 4 * num_tokens * hidden_size


class RawFloat16:
    """IEEE half precision, rounded to nearest even; values beyond 65,504 become infinite."""

    def encode(self, hidden_ND: F32Array) -> bytes:
        hidden_ND = checked(hidden_ND)
        with np.errstate(over="ignore"):
            return frame(hidden_ND, hidden_ND.astype("<f2").tobytes())

    def decode(self, message: bytes) -> F32Array:
        num_tokens, hidden_size, body = unframe(message, self)
        return np.frombuffer(body, "<f2").reshape(num_tokens, hidden_size).astype(np.float32)

    def nbytes(self, num_tokens: int, hidden_size: int) -> int:
        return HEADER_BYTES + 2 * num_tokens * hidden_size


class RawBfloat16:
    """The upper half of float32, rounded to nearest even: float32's range, 8 bits of precision."""

    def encode(self, hidden_ND: F32Array) -> bytes:
        hidden_ND = checked(hidden_ND)
        bits = hidden_ND.view(np.uint32)
        rounded = ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(
            "<u2"
        )
        quiet_nan = ((bits >> np.uint32(16)) | np.uint32(0x0040)).astype("<u2")  # rounding would carry a NaN to -0
        return frame(hidden_ND, np.where(np.isnan(hidden_ND), quiet_nan, rounded).tobytes())

    def decode(self, message: bytes) -> F32Array:
        num_tokens, hidden_size, body = unframe(message, self)
        bits = np.frombuffer(body, "<u2").astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).reshape(num_tokens, hidden_size)

    def nbytes(self, num_tokens: int, hidden_size: int) -> int:
        return HEADER_BYTES + 2 * num_tokens * hidden_size
