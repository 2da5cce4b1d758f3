"""Quantisers of one width for all tokens: uniform grids, symmetric or with a zero point, and 8-bit floats."""

from __future__ import annotations

import numpy as np

from testbed.codecs.compiling import announce, kernels, kernels_for, torch_kernels
from testbed.codecs.framing import F32Array, U8Array
from testbed.codecs.stages import (
    SCALE_BYTES,
    ZERO_BYTES,
    Blocks,
    Coded,
    FixedStage,
    Side,
    Streams,
    checked_scales,
    checked_zeros,
)

_NOTHING = np.empty(0, np.uint8)
_OF_INT8, _OF_INT4, _OF_SYMMETRIC, _OF_ASYMMETRIC = 3, 4, 8, 16  # stage numbers; the last two plus a width
_WHOLE_BYTES = {4, 8}  # widths of which a byte holds whole codes, so that an entropy coder gets the payload as it is


class UniformStage(FixedStage):
    """Codes of `bits` bits, 2 to 8, and a float32 scale a token.

    Symmetric: codes -(2^(bits-1) - 1) ... 2^(bits-1) - 1 in two's complement. Otherwise unsigned codes between a row's
    smallest and largest value, 0 among them, and the code of 0 as a byte a token.
    """

    takes_tensors = True

    def __init__(self, bits: int, *, symmetric: bool = True) -> None:
        self._bits, self._symmetric = bits, symmetric
        symmetric_id = {8: _OF_INT8, 4: _OF_INT4}.get(bits, _OF_SYMMETRIC + bits)
        self.stage_id = symmetric_id if symmetric else _OF_ASYMMETRIC + bits

    def encode(self, hidden_ND: F32Array, tau_bits: int) -> Coded:
        side, codes_ND, num_above = self._coded(hidden_ND, tau_bits)
        return Coded(side, self._packed(codes_ND), num_above)

    def decode(self, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        return self._values(side, kernels().unpack_rows(payload, self._widths(num_tokens), hidden_size))

    def row_nbytes(self, hidden_size: int) -> int:
        return (hidden_size * self._bits + 7) // 8

    def side_nbytes(self, num_tokens: int) -> int:
        return (SCALE_BYTES + (0 if self._symmetric else ZERO_BYTES)) * num_tokens

    def read_side(self, packed: U8Array, num_tokens: int) -> Side:
        split = SCALE_BYTES * num_tokens
        scales_N = checked_scales(packed[:split])
        if self._symmetric:
            return Side(scales_N, _NOTHING)
        return Side(scales_N, _NOTHING, checked_zeros(packed[split:], scales_N, 2**self._bits - 1))

    def streams(self, hidden_ND: F32Array, tau_bits: int) -> Streams:
        """A symbol a code, or a byte of two codes of four bits."""
        if self._bits in _WHOLE_BYTES:
            return super().streams(hidden_ND, tau_bits)
        side, codes_ND, num_above = self._coded(hidden_ND, tau_bits)
        packed_nbytes = hidden_ND.shape[0] * self.row_nbytes(hidden_ND.shape[1])
        blocks = Blocks([0], [hidden_ND.shape[0]], hidden_ND.shape[1])
        symbols_ND = codes_ND if isinstance(codes_ND, np.ndarray) else torch_kernels().on_host(codes_ND)
        return Streams(side, symbols_ND.reshape(-1), blocks, _NOTHING, num_above, packed_nbytes)

    def alphabet(self, key: int) -> int:
        return 256 if self._bits in _WHOLE_BYTES else 1 << self._bits

    def blocks(self, side: Side, num_tokens: int, hidden_size: int) -> tuple[Blocks, int]:
        if self._bits in _WHOLE_BYTES:
            return super().blocks(side, num_tokens, hidden_size)
        return Blocks([0], [num_tokens], hidden_size), 0

    def from_streams(self, side: Side, symbols: U8Array, rest: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        if self._bits in _WHOLE_BYTES:
            return super().from_streams(side, symbols, rest, num_tokens, hidden_size)
        return self._values(side, symbols.reshape(num_tokens, hidden_size))

    def _coded(self, hidden_ND: F32Array, tau_bits: int) -> tuple[bytes, U8Array, int]:
        announce("kernel_uniform")
        coded = kernels_for(hidden_ND).uniform_codes(hidden_ND, tau_bits, self._bits, self._symmetric)
        scales_N, zeros_N, codes_ND, num_above = coded
        side = scales_N.astype("<f4", copy=False).tobytes()
        return side if self._symmetric else side + zeros_N.tobytes(), codes_ND, num_above

    def _packed(self, codes_ND: U8Array) -> U8Array:
        return kernels_for(codes_ND).pack_rows(codes_ND, self._widths(codes_ND.shape[0]))

    def _values(self, side: Side, codes_ND: U8Array) -> F32Array:
        announce("kernel_uniform")
        return kernels().uniform_values(side.scales, side.zeros, codes_ND, self._bits, self._symmetric)

    def _widths(self, num_tokens: int) -> U8Array:
        return np.full(num_tokens, self._bits, np.uint8)


class Fp8Stage(FixedStage):
    """One byte a value: 8-bit floats E4M3 without infinities, scaled so that a row's peak is their largest, 448."""

    stage_id = 5

    def encode(self, hidden_ND: F32Array, tau_bits: int) -> Coded:
        announce("kernel_uniform")
        scales_N, codes_ND, num_above = kernels().fp8_codes(hidden_ND, tau_bits)
        return Coded(scales_N.astype("<f4", copy=False).tobytes(), codes_ND.reshape(-1), num_above)

    def decode(self, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        announce("kernel_uniform")
        return kernels().fp8_values(side.scales, payload.reshape(num_tokens, hidden_size))

    def row_nbytes(self, hidden_size: int) -> int:
        return hidden_size

    def side_nbytes(self, num_tokens: int) -> int:
        return SCALE_BYTES * num_tokens

    def read_side(self, packed: U8Array, num_tokens: int) -> Side:
        return Side(checked_scales(packed), _NOTHING)
