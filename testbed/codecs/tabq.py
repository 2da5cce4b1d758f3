"""TAB-Q, token-wise adaptive bit quantisation [name and per-token choice published; the rest our design]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.codecs.compiling import announce, kernels, kernels_for
from testbed.codecs.effort import ASYMMETRIC_TABQ, TABQ
from testbed.codecs.framing import CodecError, F32Array, U8Array
from testbed.codecs.reference import FULL_WIDTH, TabqSetting, stripe_bytes
from testbed.codecs.stages import (
    SCALE_BYTES,
    ZERO_BYTES,
    Blocks,
    Coded,
    Side,
    Streams,
    checked_scales,
    checked_zeros,
)

_PLAIN, _ASYMMETRIC, _REQUANTISED, _ASYMMETRIC_REQUANTISED = 6, 7, 8, 9  # stage numbers
_NIBBLES = np.stack([np.arange(256) & 0x0F, np.arange(256) >> 4], axis=1).astype(np.uint8)
_NOTHING = np.empty(0, np.uint8)
_TOP = 2**FULL_WIDTH - 1
_IS_WIDTH = np.isin(np.arange(16), [0, 2, 3, 4, 5, 6, 7, 8])


class TabqStage:
    """Each row at the fewest bits whose distortion the tolerance allows, and a sign bit a value.

    Side information: widths, two a byte, 0 for a row of zeros; then a float32 scale a token.
    """

    is_fixed_size = False
    effort = TABQ
    takes_tensors = True

    def __init__(self, setting: TabqSetting) -> None:
        self._setting = setting
        self.stage_id = _REQUANTISED if setting.requantise else _PLAIN
        self.keys = tuple(range(setting.qmin, setting.qmax + 1))

    def encode(self, hidden_ND: F32Array, tau_bits: int) -> Coded:
        announce("kernel_encode")
        widths_N, scales_N, payload, num_above = kernels_for(hidden_ND).tabq_pack(hidden_ND, tau_bits, self._setting)
        return Coded(_side(widths_N, scales_N), payload, num_above)

    def side_nbytes(self, num_tokens: int) -> int:
        return _side_nbytes(num_tokens)

    def read_side(self, packed: U8Array, num_tokens: int) -> Side:
        return _read_side(packed, num_tokens)

    def payload_nbytes(self, side: Side, num_tokens: int, hidden_size: int) -> int:
        return _num_planes(side.widths) * stripe_bytes(hidden_size)

    def nbytes_bound(self, num_tokens: int, hidden_size: int) -> int:
        return self.side_nbytes(num_tokens) + num_tokens * (self._setting.qmax + 1) * stripe_bytes(hidden_size)

    def decode(self, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        announce("kernel_decode")
        return kernels().tabq_unpack(side.widths, side.scales, payload, hidden_size, self._setting.requantise)

    def streams(self, hidden_ND: F32Array, tau_bits: int) -> Streams:
        """A block for each width that occurs, since every width has an alphabet and a law of its own."""
        announce("kernel_encode")
        coded = kernels_for(hidden_ND).tabq_symbols(hidden_ND, tau_bits, self._setting)
        widths_N, scales_N, symbols_ND, planes, num_above = coded
        packed_nbytes = _num_planes(widths_N) * stripe_bytes(hidden_ND.shape[1])
        blocks = _blocks(widths_N, hidden_ND.shape[1])
        symbols = _by_width(symbols_ND, widths_N, blocks)
        return Streams(_side(widths_N, scales_N), symbols, blocks, planes, num_above, packed_nbytes)

    def alphabet(self, key: int) -> int:
        return min((2 << key) - 1, 256)

    def only(self, key: int) -> TabqStage:
        return TabqStage(self._setting._replace(qmin=key, qmax=key))

    def blocks(self, side: Side, num_tokens: int, hidden_size: int) -> tuple[Blocks, int]:
        num_full = int(np.count_nonzero(side.widths == FULL_WIDTH))
        return _blocks(side.widths, hidden_size), num_full * stripe_bytes(hidden_size)

    def from_streams(self, side: Side, symbols: U8Array, rest: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        symbols_ND = _in_order(symbols, side.widths, hidden_size)
        announce("kernel_decode")
        return kernels().tabq_values(side.widths, side.scales, symbols_ND, rest, self._setting.requantise)


class AsymmetricTabqStage:
    """The same between a row's smallest and largest value: unsigned codes, no signs, and a zero point a token.

    Side information: widths and scales as above, then the code of 0 as a byte a token. A row of D codes at b bits is a
    string of D b bits, filled up to a whole byte.
    """

    is_fixed_size = False
    effort = ASYMMETRIC_TABQ
    takes_tensors = False

    def __init__(self, setting: TabqSetting) -> None:
        self._setting = setting
        self.stage_id = _ASYMMETRIC_REQUANTISED if setting.requantise else _ASYMMETRIC
        self.keys = tuple(range(setting.qmin, setting.qmax + 1))

    def encode(self, hidden_ND: F32Array, tau_bits: int) -> Coded:
        widths_N, side, codes_ND, num_above = self._coded(hidden_ND, tau_bits)
        return Coded(side, kernels().pack_rows(codes_ND, widths_N), num_above)

    def side_nbytes(self, num_tokens: int) -> int:
        return _side_nbytes(num_tokens) + ZERO_BYTES * num_tokens

    def read_side(self, packed: U8Array, num_tokens: int) -> Side:
        split = _side_nbytes(num_tokens)
        scales_N, widths_N, _ = _read_side(packed[:split], num_tokens)
        tops_N = ((1 << widths_N.astype(np.int64)) - 1).astype(np.uint8) if self._setting.requantise else _TOP
        return Side(scales_N, widths_N, checked_zeros(packed[split:], scales_N, tops_N))

    def payload_nbytes(self, side: Side, num_tokens: int, hidden_size: int) -> int:
        return _string_nbytes(side.widths, hidden_size)

    def nbytes_bound(self, num_tokens: int, hidden_size: int) -> int:
        return self.side_nbytes(num_tokens) + num_tokens * ((hidden_size * self._setting.qmax + 7) // 8)

    def decode(self, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        return self._values(side, kernels().unpack_rows(payload, side.widths, hidden_size))

    def streams(self, hidden_ND: F32Array, tau_bits: int) -> Streams:
        """A block for each width that occurs, as without zero points."""
        widths_N, side, codes_ND, num_above = self._coded(hidden_ND, tau_bits)
        packed_nbytes = _string_nbytes(widths_N, hidden_ND.shape[1])
        blocks = _blocks(widths_N, hidden_ND.shape[1])
        return Streams(side, _by_width(codes_ND, widths_N, blocks), blocks, _NOTHING, num_above, packed_nbytes)

    def alphabet(self, key: int) -> int:
        return 1 << key

    def only(self, key: int) -> AsymmetricTabqStage:
        return AsymmetricTabqStage(self._setting._replace(qmin=key, qmax=key))

    def blocks(self, side: Side, num_tokens: int, hidden_size: int) -> tuple[Blocks, int]:
        return _blocks(side.widths, hidden_size), 0

    def from_streams(self, side: Side, symbols: U8Array, rest: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        return self._values(side, _in_order(symbols, side.widths, hidden_size))

    def _coded(self, hidden_ND: F32Array, tau_bits: int) -> tuple[U8Array, bytes, U8Array, int]:
        announce("kernel_asymmetric")
        coded = kernels().asymmetric_codes(hidden_ND, tau_bits, self._setting)
        widths_N, scales_N, zeros_N, codes_ND, num_above = coded
        return widths_N, _side(widths_N, scales_N) + zeros_N.tobytes(), codes_ND, num_above

    def _values(self, side: Side, codes_ND: U8Array) -> F32Array:
        announce("kernel_asymmetric")
        requantised = self._setting.requantise
        return kernels().asymmetric_values(side.widths, side.scales, side.zeros, codes_ND, requantised)


def _by_width(symbols_ND: U8Array, widths_N: U8Array, blocks: Blocks) -> U8Array:
    """The symbols of all rows but those of zeros, row by row, the narrowest first."""
    if blocks.rows != [widths_N.size]:
        symbols_ND = symbols_ND[_order(widths_N)]
    return symbols_ND.reshape(-1)


def _in_order(symbols: U8Array, widths_N: U8Array, hidden_size: int) -> U8Array:
    """The inverse of `_by_width`."""
    symbols_ND = symbols.reshape(-1, hidden_size) if hidden_size else np.empty((widths_N.size, 0), np.uint8)
    if _blocks(widths_N, hidden_size).rows != [widths_N.size]:
        by_width_ND, symbols_ND = symbols_ND, np.zeros((widths_N.size, hidden_size), np.uint8)
        symbols_ND[_order(widths_N)] = by_width_ND
    return symbols_ND


def _blocks(widths_N: U8Array, hidden_size: int) -> Blocks:
    """A block for each width that occurs, rows of zeros apart."""
    rows = np.bincount(widths_N, minlength=FULL_WIDTH + 1).tolist()
    present = [width for width in range(1, FULL_WIDTH + 1) if rows[width]]
    return Blocks(present, [rows[width] for width in present], hidden_size)


def _order(widths_N: U8Array) -> npt.NDArray[np.intp]:
    """Rows by width, those of zeros left out."""
    return np.argsort(widths_N, kind="stable")[int(np.count_nonzero(widths_N == 0)) :]


def _num_planes(widths_N: U8Array) -> int:
    """Planes of w bytes: a row's width, and its signs."""
    return int(np.add.reduce(widths_N, dtype=np.int64)) + int(np.count_nonzero(widths_N))


def _string_nbytes(widths_N: U8Array, hidden_size: int) -> int:
    return int(((widths_N.astype(np.int64) * hidden_size + 7) // 8).sum())


def _side_nbytes(num_tokens: int) -> int:
    return (num_tokens + 1) // 2 + SCALE_BYTES * num_tokens


def _read_side(packed: U8Array, num_tokens: int) -> Side:
    split = (num_tokens + 1) // 2
    widths_N, scales_N = _read_widths(packed[:split], num_tokens), checked_scales(packed[split:])
    if ((scales_N > 0) != (widths_N > 0)).any():
        raise CodecError("a row has a scale without a width, or a width without a scale")
    return Side(scales_N, widths_N)


def _side(widths_N: U8Array, scales_N: F32Array) -> bytes:
    nibbles = np.zeros(widths_N.size + widths_N.size % 2, np.uint8)
    nibbles[: widths_N.size] = widths_N
    return (nibbles[0::2] | nibbles[1::2] << 4).tobytes() + scales_N.astype("<f4", copy=False).tobytes()


def _read_widths(packed: U8Array, num_tokens: int) -> U8Array:
    """Widths from the wire: 0, or 2 to 8; and nothing in the nibble that fills the last byte."""
    nibbles = _NIBBLES[packed].reshape(-1)
    if not _IS_WIDTH[nibbles].all() or (num_tokens % 2 and nibbles[-1]):
        raise CodecError("a row's width is none")
    return nibbles[:num_tokens]
