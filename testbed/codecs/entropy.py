"""The entropy stage: how a stage's payload travels. Where coding would not shrink a message, it travels as it is."""

from __future__ import annotations

import struct
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
import zstandard

from testbed.codecs.compiling import kernels
from testbed.codecs.framing import CodecError, F32Array, U8Array
from testbed.codecs.reference import RANS_BITS, U16Array
from testbed.codecs.stages import Side, Stage

NONE, RANS, ZSTD = 0, 1, 2
_ZSTD_LEVEL = 1
_TABLE = struct.Struct("<BBI")  # lowest and highest symbol, number of 16-bit words
_NOTHING = np.empty(0, np.uint8)


class Sections(NamedTuple):
    """Side information and payload as they travel, which entropy coder made them, and how many values are above tau."""

    side: bytes
    payload: list[bytes | U8Array]
    coder: int
    num_above: int


class EntropyCoder(Protocol):
    coder: int

    def encode(self, stage: Stage, hidden_ND: F32Array, tau_bits: int) -> Sections: ...

    def decode(self, stage: Stage, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array: ...


class Plain:
    """The packed payload."""

    coder = NONE

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
    """rANS over a stage's symbol streams, with a table of each stream in the message.

    A stream: lowest and highest symbol, number of words; the frequencies between them in 12 bits each; the words.
    """

    coder = RANS

    def encode(self, stage: Stage, hidden_ND: F32Array, tau_bits: int) -> Sections:
        side, streams, rest, num_above, packed_nbytes = stage.streams(hidden_ND, tau_bits)
        coded: list[bytes | U8Array] = [part for stream in streams if stream.size for part in _coded(stream)]
        size = sum(len(part) for part in coded) + rest.size
        if size >= packed_nbytes:
            return Plain().encode(stage, hidden_ND, tau_bits)
        return Sections(side, [*coded, rest], RANS, num_above)

    def decode(self, stage: Stage, side: Side, payload: U8Array, num_tokens: int, hidden_size: int) -> F32Array:
        sizes = stage.stream_sizes(side, num_tokens, hidden_size)
        streams = []
        for count, alphabet in zip(sizes.counts, sizes.alphabets, strict=True):
            stream, payload = _decoded(payload, count, alphabet) if count else (_NOTHING, payload)
            streams.append(stream)
        if payload.size != sizes.rest_bytes:
            raise CodecError(f"{payload.size} bytes follow the coded symbols in place of {sizes.rest_bytes}")
        return stage.from_streams(side, streams, payload, num_tokens, hidden_size)


def _coded(stream: U8Array) -> list[bytes | U8Array]:
    frequencies = kernels().rans_table(stream)
    words = kernels().rans_encode(stream, frequencies)
    present = np.flatnonzero(frequencies)
    low, high = int(present[0]), int(present[-1])
    table = kernels().pack_bits(frequencies[low : high + 1].astype(np.uint32), RANS_BITS)
    return [_TABLE.pack(low, high, words.size), table, words.astype("<u2", copy=False).view(np.uint8)]


def _decoded(payload: U8Array, count: int, alphabet: int) -> tuple[U8Array, U8Array]:
    """(symbols, what follows them)."""
    frequencies, num_words, payload = _read_table(payload, alphabet)
    if payload.size < 2 * num_words:
        raise CodecError("the coded symbols end early")
    words = np.frombuffer(payload[: 2 * num_words], "<u2")
    symbols = kernels().rans_decode(words, frequencies, count)
    if symbols is None:
        raise CodecError("words that no symbols were coded to")
    return symbols, payload[2 * num_words :]


def _read_table(payload: U8Array, alphabet: int) -> tuple[U16Array, int, U8Array]:
    if payload.size < _TABLE.size:
        raise CodecError("the coded symbols end before their table")
    low, high, num_words = _TABLE.unpack_from(payload.data)
    table_bytes = ((high - low + 1) * RANS_BITS + 7) // 8
    if not low <= high < alphabet or payload.size < _TABLE.size + table_bytes:
        raise CodecError(f"a table of symbols {low} to {high} of {alphabet}")
    frequencies = np.zeros(256, np.uint16)
    packed = payload[_TABLE.size : _TABLE.size + table_bytes]
    frequencies[low : high + 1] = kernels().unpack_bits(packed, RANS_BITS, high - low + 1)
    if int(frequencies.sum(dtype=np.int64)) != 1 << RANS_BITS:
        raise CodecError("frequencies that don't add up")
    return frequencies, num_words, payload[_TABLE.size + table_bytes :]


@cache
def _compressor() -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=False, write_content_size=True)


@cache
def _decompressor() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor()


CODERS: tuple[EntropyCoder, ...] = (Plain(), Rans(), Zstd())
CODER_NAMES = {"none": CODERS[NONE], "rans": CODERS[RANS], "zstd": CODERS[ZSTD]}
