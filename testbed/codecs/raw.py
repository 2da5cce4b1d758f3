"""Hidden states as they are, or rounded to a 16-bit format."""

from __future__ import annotations

import numpy as np

from testbed.codecs.framing import F32Array, U8Array
from testbed.codecs.stages import FixedStage


class Float32Stage(FixedStage):
    """Four bytes a value, bit for bit."""

    stage_id = 0
    has_scales = False
    takes_non_finite = True

    def row_nbytes(self, hidden_size: int) -> int:
        return 4 * hidden_size

    def code(self, below_ND: F32Array) -> tuple[None, U8Array]:
        return None, below_ND.astype("<f4", copy=False).reshape(-1).view(np.uint8)

    def values(self, scales_N: F32Array, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        return np.frombuffer(payload, "<f4").reshape(num_tokens, hidden_size).astype(np.float32)


class Float16Stage(FixedStage):
    """IEEE half precision, rounded to nearest even; values beyond 65,504 become infinite."""

    stage_id = 1
    has_scales = False
    takes_non_finite = True

    def row_nbytes(self, hidden_size: int) -> int:
        return 2 * hidden_size

    def code(self, below_ND: F32Array) -> tuple[None, U8Array]:
        with np.errstate(over="ignore"):
            return None, below_ND.astype("<f2").reshape(-1).view(np.uint8)

    def values(self, scales_N: F32Array, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        return np.frombuffer(payload, "<f2").reshape(num_tokens, hidden_size).astype(np.float32)


class Bfloat16Stage(FixedStage):
    """The upper half of float32, rounded to nearest even: float32's range, 8 bits of precision."""

    stage_id = 2
    has_scales = False
    takes_non_finite = True

    def row_nbytes(self, hidden_size: int) -> int:
        return 2 * hidden_size

    def code(self, below_ND: F32Array) -> tuple[None, U8Array]:
        bits = below_ND.view(np.uint32)
        upper = bits >> np.uint32(16)
        rounded = ((bits + (np.uint32(0x7FFF) + (upper & np.uint32(1)))) >> np.uint32(16)).astype("<u2")
        quiet_nan = (upper | np.uint32(0x0040)).astype("<u2")  # rounding would carry a NaN to -0
        return None, np.where(np.isnan(below_ND), quiet_nan, rounded).reshape(-1).view(np.uint8)

    def values(self, scales_N: F32Array, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        bits = np.frombuffer(payload, "<u2").astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).reshape(num_tokens, hidden_size)
