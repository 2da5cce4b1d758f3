"""The entropy stage: how a stage's payload travels. Where coding would not shrink a message, it travels as it is."""

from __future__ import annotations

import struct
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
import zstandard

from testbed.codecs.compiling import kernels
from testbed.codecs.effort import NOTHING, RANS_CODING, ZSTD_CODING, Effort
from testbed.codecs.framing import CodecError, F32Array, U8Array, U32Array
from testbed.codecs.reference import RANS_BITS, I64Array, U16Array
from testbed.codecs.stages import Side, Stage

NONE, RANS, ZSTD, RANS_AGREED = 0, 1, 2, 3
_ZSTD_LEVEL = 1
_RANGE = struct.Struct("<BB")  # lowest and highest symbol


class Sections(NamedTuple):
    """Side information and payload as they travel, which entropy coder made them, and how many values are above tau."""

    side: bytes
    payload: list[bytes | U8Array]
    coder: int
    num_above: int


class EntropyCoder(Protocol):
    coder: int
    effort: Effort  # on top of the stage's

    def encode(self, stage: Stage, hidden_ND: F32Array, tau_bits: int) -> Sections: ...

    def decode(self, stage: Stage, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array: ...


class Plain:
    """The packed payload."""

    coder = NONE
    effort = NOTHING

    def encode(self, stage: Stage, hidden_ND: F32Array, tau_bits: int) -> Sections:
        side, payload, num_above = stage.encode(hidden_ND, tau_bits)
        return Sections(side, [payload], NONE, num_above)

    def decode(self, stage: Stage, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        expected = stage.payload_nbytes(side, num_tokens, hidden_size)
        if payload.size != expected:
            raise CodecError(f"{payload.size} bytes for [{num_tokens}, {hidden_size}], which takes {expected}")
        return stage.decode(side, payload, num_tokens, hidden_size)


class Zstd:
    """Zstandard, level 1, over the packed payload. Its bytes may differ between versions of the library."""

    coder = ZSTD
    effort = ZSTD_CODING

    def encode(self, stage: Stage, hidden_ND: F32Array, tau_bits: int) -> Sections:
        side, payload, num_above = stage.encode(hidden_ND, tau_bits)
        packed = _compressor().compress(payload.data)
        if len(packed) >= payload.size:
            return Sections(side, [payload], NONE, num_above)
        return Sections(side, [packed], ZSTD, num_above)

    def decode(self, stage: Stage, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        expected = stage.payload_nbytes(side, num_tokens, hidden_size)
        try:
            claimed = zstandard.get_frame_parameters(payload.data).content_size
            if claimed != expected:
                raise CodecError(f"{claimed} bytes are compressed, and [{num_tokens}, {hidden_size}] takes {expected}")
            unpacked = _decompressor().decompress(payload.data, max_output_size=expected, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise CodecError(f"not compressed by zstd: {error}") from None
        if len(unpacked) != expected:
            raise CodecError(f"{len(unpacked)} bytes came out, and [{num_tokens}, {hidden_size}] takes {expected}")
        return stage.decode(side, np.frombuffer(unpacked, np.uint8), num_tokens, hidden_size)


class Rans:
    """rANS over a stage's symbols, with a table of each block in the message.

    Of each table the lowest and highest symbol and the frequencies between them in 12 bits each; then one stream.
    """

    coder = RANS
    effort = RANS_CODING

    def encode(self, stage: Stage, hidden_ND: F32Array, tau_bits: int) -> Sections:
        side, symbols, blocks, rest, num_above, packed_nbytes = stage.streams(hidden_ND, tau_bits)
        counts = np.array(blocks.counts(), np.int64)
        if not symbols.size:
            return Plain().encode(stage, hidden_ND, tau_bits)
        frequencies, stop = np.empty((counts.size, 256), np.uint16), 0
        for row, count in zip(frequencies, counts.tolist(), strict=True):
            start, stop = stop, stop + count
            row[:] = kernels().rans_table(symbols[start:stop])
        tables = b"".join([_packed_table(row) for row in frequencies])
        stream = kernels().rans_encode(symbols, counts, np.arange(counts.size), frequencies)
        if len(tables) + stream.size + rest.size >= packed_nbytes:
            return Plain().encode(stage, hidden_ND, tau_bits)
        return Sections(side, [tables, stream, rest], RANS, num_above)

    def decode(self, stage: Stage, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        blocks, rest_bytes = stage.blocks(side, num_tokens, hidden_size)
        counts = np.array(blocks.counts(), np.int64)
        if not counts.sum():
            raise CodecError("symbols were coded, and there are none")
        frequencies = np.zeros((counts.size, 256), np.uint16)
        for row, key in zip(frequencies, blocks.keys, strict=True):
            payload = _read_table(payload, stage.alphabet(key), row)
        slots = kernels().rans_slots(frequencies)
        symbols, rest = coded_symbols(payload, counts, np.arange(counts.size), slots, rest_bytes)
        return stage.from_streams(side, symbols, rest, num_tokens, hidden_size)


def coded_symbols(
    payload: U8Array, counts_S: I64Array, tables_S: I64Array, slots: U32Array, rest_bytes: int
) -> tuple[U8Array, U8Array]:
    """(symbols, the rest) of a stream that ends where the rest begins."""
    if payload.size < rest_bytes:
        raise CodecError("the coded symbols end early")
    stream = payload[: payload.size - rest_bytes]
    symbols = kernels().rans_decode(stream, counts_S, tables_S, slots)
    if symbols is None:
        raise CodecError("bytes that no symbols were coded to")
    return symbols, payload[stream.size :]


def _packed_table(frequencies: U16Array) -> bytes:
    present = np.flatnonzero(frequencies)
    low, high = int(present[0]), int(present[-1])
    packed = kernels().pack_bits(frequencies[low : high + 1].astype(np.uint32), RANS_BITS)
    return _RANGE.pack(low, high) + packed.tobytes()


def _read_table(payload: U8Array, alphabet: int, frequencies: U16Array) -> U8Array:
    """Fill in the frequencies of a table; what follows it."""
    if payload.size < _RANGE.size:
        raise CodecError("the coded symbols end before their table")
    low, high = _RANGE.unpack_from(payload.data)
    table_bytes = ((high - low + 1) * RANS_BITS + 7) // 8
    if not low <= high < alphabet or payload.size < _RANGE.size + table_bytes:
        raise CodecError(f"a table of symbols {low} to {high} of {alphabet}")
    packed = payload[_RANGE.size : _RANGE.size + table_bytes]
    frequencies[low : high + 1] = kernels().unpack_bits(packed, RANS_BITS, high - low + 1)
    if int(frequencies.sum(dtype=np.int64)) != 1 << RANS_BITS:
        raise CodecError("frequencies that don't add up")
    return payload[_RANGE.size + table_bytes :]


@cache
def _compressor() -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=False, write_content_size=True)


@cache
def _decompressor() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor()


CODERS: tuple[EntropyCoder, ...] = (Plain(), Rans(), Zstd())
CODER_NAMES = {"none": CODERS[NONE], "rans": CODERS[RANS], "zstd": CODERS[ZSTD]}
