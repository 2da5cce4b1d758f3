"""TAB-Q, token-wise adaptive bit quantisation [name and per-token choice published; the rest our design]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from testbed.codecs.compiling import announce, kernels
from testbed.codecs.framing import CodecError, F32Array, U8Array
from testbed.codecs.reference import FULL_WIDTH, TabqSetting, stripe_bytes
from testbed.codecs.stages import SCALE_BYTES, Coded, Side, Streams, StreamSizes, checked_scales

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
        """A stream for each width that occurs, since every width has an alphabet and a law of its own."""
        announce("kernel_encode")
        widths_N, scales_N, symbols_ND, planes, num_above = kernels().tabq_symbols(hidden_ND, tau_bits, self._setting)
        packed_nbytes = _num_planes(widths_N) * stripe_bytes(hidden_ND.shape[1])
        present = _present(widths_N)
        if len(present) == 1 and widths_N.all():
            streams = [symbols_ND.reshape(-1)]
        else:
            streams = [symbols_ND[widths_N == width].reshape(-1) for width in present]
        return Streams(_side(widths_N, scales_N), streams, planes, num_above, packed_nbytes)

    def stream_sizes(self, side: Side, num_tokens: int, hidden_size: int) -> StreamSizes:
        rows = np.bincount(side.widths, minlength=FULL_WIDTH + 1).tolist()
        present = _present(side.widths)
        return StreamSizes(
            counts=[rows[width] * hidden_size for width in present],
            alphabets=[min(2 ** (width + 1) - 1, 256) for width in present],
            rest_bytes=rows[FULL_WIDTH] * stripe_bytes(hidden_size),
        )

    def from_streams(
        self, side: Side, streams: Sequence[U8Array], rest: U8Array, num_tokens: int, hidden_size: int
    ) -> F32Array:
        present = _present(side.widths)
        if len(present) == 1 and side.widths.all():
            symbols_ND = streams[0].reshape(num_tokens, hidden_size)
        else:
            symbols_ND = np.zeros((num_tokens, hidden_size), np.uint8)
            for width, stream in zip(present, streams, strict=True):
                symbols_ND[side.widths == width] = stream.reshape(-1, hidden_size)
        announce("kernel_decode")
        return kernels().tabq_values(side.widths, side.scales, symbols_ND, rest)


def _present(widths_N: U8Array) -> list[int]:
    """The widths that occur, rows of zeros apart."""
    return sorted(set(widths_N.tolist()) - {0})


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
