"""Hidden states as they are, or rounded to a 16-bit format."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from testbed.codecs.framing import F32Array, U8Array
from testbed.codecs.reference import below, num_above
from testbed.codecs.stages import INFINITY_BITS, Coded, FixedStage, Side

_NOTHING = np.empty(0, np.uint8)


class RawStage(FixedStage):
    """Numbers of one format, one after the other, without side information; NaN and infinity are numbers too."""

    value_bytes: int

    @abstractmethod
    def code(self, below_ND: F32Array) -> U8Array: ...

    def encode(self, hidden_ND: F32Array, tau_bits: int) -> Coded:
        above = 0 if tau_bits == INFINITY_BITS else num_above(hidden_ND, tau_bits)
        return Coded(b"", self.code(below(hidden_ND, tau_bits) if above else hidden_ND), above)

    def row_nbytes(self, hidden_size: int) -> int:
        return self.value_bytes * hidden_size

    def side_nbytes(self, num_tokens: int) -> int:
        return 0

    def read_side(self, packed: U8Array, num_tokens: int) -> Side:
        return Side(np.empty(0, np.float32), _NOTHING)


class Float32Stage(RawStage):
    """Four bytes a value, bit for bit."""

    stage_id, value_bytes = 0, 4

    def code(self, below_ND: F32Array) -> U8Array:
        return below_ND.astype("<f4", copy=False).reshape(-1).view(np.uint8)

    def decode(self, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        return np.frombuffer(payload, "<f4").reshape(num_tokens, hidden_size).astype(np.float32)


class Float16Stage(RawStage):
    """IEEE half precision, rounded to nearest even; values beyond 65,504 become infinite."""

    stage_id, value_bytes = 1, 2

    def code(self, below_ND: F32Array) -> U8Array:
        with np.errstate(over="ignore"):
            return below_ND.astype("<f2").reshape(-1).view(np.uint8)

    def decode(self, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        return np.frombuffer(payload, "<f2").reshape(num_tokens, hidden_size).astype(np.float32)


class Bfloat16Stage(RawStage):
    """The upper half of float32, rounded to nearest even: float32's range, 8 bits of precision."""

    stage_id, value_bytes = 2, 2

    def code(self, below_ND: F32Array) -> U8Array:
        bits = below_ND.view(np.uint32)
        upper = bits >> np.uint32(16)
        rounded = ((bits + (np.uint32(0x7FFF) + (upper & np.uint32(1)))) >> np.uint32(16)).astype("<u2")
        quiet_nan = (upper | np.uint32(0x0040)).astype("<u2")  # rounding would carry a NaN to -0
        return np.where(np.isnan(below_ND), quiet_nan, rounded).reshape(-1).view(np.uint8)

    def decode(self, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        bits = np.frombuffer(payload, "<u2").astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).reshape(num_tokens, hidden_size)
