"""The quantiser stage of a codec: what lies below the threshold, as side information and payload.

Every stage counts a value at or above the threshold as 0; what is split off travels beside it (sparse.py). The side
information alone says how long the payload is, so that a decoder knows every size before it allocates or decompresses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from testbed.codecs.effort import ONE_PASS, Effort
from testbed.codecs.framing import CodecError, F32Array, U8Array

SCALE_BYTES = 4
ZERO_BYTES = 1
_NOTHING = np.empty(0, np.uint8)
INFINITY_BITS = 0x7F800000  # as a threshold: only NaN and infinity are above it


class Side(NamedTuple):
    """Side information, read and found to be possible: a scale, a width, a zero point a token, or some of them."""

    scales: F32Array
    widths: U8Array
    zeros: U8Array = _NOTHING


class Coded(NamedTuple):
    """Side information, payload and how many values were at or above the threshold."""

    side: bytes
    payload: U8Array
    num_above: int


class Blocks(NamedTuple):
    """How symbols lie for an entropy coder: blocks of whole rows, one behind the other, each of an alphabet of its own.

    `keys` say which alphabet, `rows` how many rows, `columns` how many symbols a row has in every block.
    """

    keys: Sequence[int]
    rows: Sequence[int]
    columns: int

    def counts(self) -> list[int]:
        """Symbols of each block."""
        return [rows * self.columns for rows in self.rows]


class Streams(NamedTuple):
    """The payload as one-byte symbols for an entropy coder, and what isn't worth coding."""

    side: bytes
    symbols: U8Array
    blocks: Blocks
    rest: U8Array
    num_above: int
    packed_nbytes: int  # what the payload takes without an entropy coder


class Stage(Protocol):
    """Hidden states [n, d] to (side, payload) and back. `read_side` and `decode` get bytes of the right length only."""

    stage_id: int
    is_fixed_size: bool
    effort: Effort
    takes_tensors: bool  # whether `encode` and `streams` take a tensor as well
    keys: tuple[int, ...]  # of all alphabets that its symbols may have

    def encode(self, hidden_ND: F32Array, tau_bits: int) -> Coded: ...
    def side_nbytes(self, num_tokens: int) -> int: ...
    def read_side(self, packed: U8Array, num_tokens: int) -> Side: ...
    def payload_nbytes(self, side: Side, num_tokens: int, hidden_size: int) -> int: ...
    def decode(self, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array: ...
    def nbytes_bound(self, num_tokens: int, hidden_size: int) -> int: ...
    def streams(self, hidden_ND: F32Array, tau_bits: int) -> Streams: ...
    def alphabet(self, key: int) -> int: ...
    def only(self, key: int) -> Stage:
        """The same stage where every row has to take this alphabet."""
        ...

    def blocks(self, side: Side, num_tokens: int, hidden_size: int) -> tuple[Blocks, int]:
        """(blocks of the symbols, bytes of the rest) that `streams` made together with this side information."""
        ...

    def from_streams(
        self, side: Side, symbols: U8Array, rest: U8Array, num_tokens: int, hidden_size: int
    ) -> F32Array: ...


class FixedStage(ABC):
    """A stage of so many bytes a row, whatever its content; its payload is one block of symbols."""

    stage_id: int
    is_fixed_size = True
    effort = ONE_PASS
    takes_tensors = False
    keys: tuple[int, ...] = (0,)

    @abstractmethod
    def encode(self, hidden_ND: F32Array, tau_bits: int) -> Coded: ...

    @abstractmethod
    def decode(self, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array: ...

    @abstractmethod
    def row_nbytes(self, hidden_size: int) -> int: ...

    @abstractmethod
    def side_nbytes(self, num_tokens: int) -> int: ...

    @abstractmethod
    def read_side(self, packed: U8Array, num_tokens: int) -> Side: ...

    def payload_nbytes(self, side: Side, num_tokens: int, hidden_size: int) -> int:
        return num_tokens * self.row_nbytes(hidden_size)

    def nbytes_bound(self, num_tokens: int, hidden_size: int) -> int:
        return self.side_nbytes(num_tokens) + num_tokens * self.row_nbytes(hidden_size)

    def streams(self, hidden_ND: F32Array, tau_bits: int) -> Streams:
        side, payload, num_above = self.encode(hidden_ND, tau_bits)
        blocks = Blocks([0], [hidden_ND.shape[0]], self.row_nbytes(hidden_ND.shape[1]))
        return Streams(side, payload, blocks, payload[:0], num_above, payload.size)

    def alphabet(self, key: int) -> int:
        return 256

    def only(self, key: int) -> Stage:
        return self

    def blocks(self, side: Side, num_tokens: int, hidden_size: int) -> tuple[Blocks, int]:
        return Blocks([0], [num_tokens], self.row_nbytes(hidden_size)), 0

    def from_streams(self, side: Side, symbols: U8Array, rest: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        return self.decode(side, symbols, num_tokens, hidden_size)


def checked_scales(packed: U8Array) -> F32Array:
    """Scales from the wire, one a token: finite and not negative, or CodecError."""
    scales_N = np.frombuffer(packed, "<f4").astype(np.float32)  # a copy, aligned as kernels need it
    if not (scales_N.view(np.uint32) < INFINITY_BITS).all():
        raise CodecError("a scale is negative or not finite")
    return scales_N


def checked_zeros(packed: U8Array, scales_N: F32Array, tops_N: int | U8Array) -> U8Array:
    """Zero points from the wire, one a token: none beyond a row's largest code or in a row of zeros, or CodecError."""
    if (packed > np.where(scales_N > 0, tops_N, 0)).any():
        raise CodecError("a zero point lies beyond the codes of its row")
    return packed
