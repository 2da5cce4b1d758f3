"""TAB-Q, token-wise adaptive bit quantisation [name and per-token choice published; the rest our design]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.codecs.compiling import announce, kernels
from testbed.codecs.framing import CodecError, F32Array, U8Array
from testbed.codecs.reference import FULL_WIDTH, TabqSetting, stripe_bytes
from testbed.codecs.stages import SCALE_BYTES, Blocks, Coded, Side, Streams, checked_scales

_NIBBLES = np.stack([np.arange(256) & 0x0F, np.arange(256) >> 4], axis=1).astype(np.uint8)
_IS_WIDTH = np.isin(np.arange(16), [0, 2, 3, 4, 5, 6, 7, 8])


class TabqStage:
    """Each row at the fewest bits whose distortion the tolerance allows, and a sign bit a value.

    Side information: widths, two a byte, 0 for a row of zeros; then a float32 scale a token.
    """

    stage_id = 6
    is_fixed_size = False

    def __init__(self, setting: TabqSetting) -> None:
        self._setting = setting
        self.keys = tuple(range(setting.qmin, setting.qmax + 1))

    def encode(self, hidden_ND: F32Array, tau_bits: int) -> Coded:
        announce("kernel_encode")
        widths_N, scales_N, payload, num_above = kernels().tabq_pack(hidden_ND, tau_bits, self._setting)
        return Coded(_side(widths_N, scales_N), payload, num_above)

    def side_nbytes(self, num_tokens: int) -> int:
        return (num_tokens + 1) // 2 + SCALE_BYTES * num_tokens

    def read_side(self, packed: U8Array, num_tokens: int) -> Side:
        split = (num_tokens + 1) // 2
        widths_N, scales_N = _read_widths(packed[:split], num_tokens), checked_scales(packed[split:])
        if ((scales_N > 0) != (widths_N > 0)).any():
            raise CodecError("a row has a scale without a width, or a width without a scale")
        return Side(scales_N, widths_N)

    def payload_nbytes(self, side: Side, num_tokens: int, hidden_size: int) -> int:
        return _num_planes(side.widths) * stripe_bytes(hidden_size)

    def nbytes_bound(self, num_tokens: int, hidden_size: int) -> int:
        return self.side_nbytes(num_tokens) + num_tokens * (self._setting.qmax + 1) * stripe_bytes(hidden_size)

    def decode(self, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        announce("kernel_decode")
        return kernels().tabq_unpack(side.widths, side.scales, payload, hidden_size)

    def streams(self, hidden_ND: F32Array, tau_bits: int) -> Streams:
        """A block for each width that occurs, since every width has an alphabet and a law of its own."""
        announce("kernel_encode")
        widths_N, scales_N, symbols_ND, planes, num_above = kernels().tabq_symbols(hidden_ND, tau_bits, self._setting)
        packed_nbytes = _num_planes(widths_N) * stripe_bytes(hidden_ND.shape[1])
        blocks = _blocks(widths_N, hidden_ND.shape[1])
        if blocks.rows != [hidden_ND.shape[0]]:
            symbols_ND = symbols_ND[_order(widths_N)]
        return Streams(_side(widths_N, scales_N), symbols_ND.reshape(-1), blocks, planes, num_above, packed_nbytes)

    def alphabet(self, key: int) -> int:
        return min((2 << key) - 1, 256)

    def blocks(self, side: Side, num_tokens: int, hidden_size: int) -> tuple[Blocks, int]:
        num_full = int(np.count_nonzero(side.widths == FULL_WIDTH))
        return _blocks(side.widths, hidden_size), num_full * stripe_bytes(hidden_size)

    def from_streams(self, side: Side, symbols: U8Array, rest: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        symbols_ND = symbols.reshape(-1, hidden_size) if hidden_size else np.empty((num_tokens, 0), np.uint8)
        if _blocks(side.widths, hidden_size).rows != [num_tokens]:
            by_width_ND, symbols_ND = symbols_ND, np.zeros((num_tokens, hidden_size), np.uint8)
            symbols_ND[_order(side.widths)] = by_width_ND
        announce("kernel_decode")
        return kernels().tabq_values(side.widths, side.scales, symbols_ND, rest)


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
