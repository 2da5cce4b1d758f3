"""The message at the cut: what every codec's bytes begin and end with, and the one error a bad message raises.

Layout [our design], little endian: 20 bytes of header, the sections (sparse values, side information, payload), and
CRC-32C over everything before it. 24 bytes in all, whatever the codec, so that codecs are compared by their payloads.

    magic u8 | version, mode, flags u8 | kinds u8 | split u8 | d u16 | n u24 | position u24
    | session u32 | tau f32 | sections | crc u32

Bits, lowest first: version byte: rotated, sparse values as bfloat16, mode (2), version (4); kinds:
stage (4), entropy coder (2), fifth bit of the stage, sparse values follow.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from testbed.codecs.effort import Effort
from testbed.core.errors import TestbedError

F32Array = npt.NDArray[np.float32]
U32Array = npt.NDArray[np.uint32]
U8Array = npt.NDArray[np.uint8]

MAGIC, VERSION = 0xC7, 2
MAX_MODE = 2
MAX_VALUES = 2**26  # n d of one message: what a decoder may have to allocate floats for
MAX_HIDDEN_SIZE = 2**16 - 1
_MAX_U24, _MAX_U32, _MAX_U8 = 2**24 - 1, 2**32 - 1, 2**8 - 1

_HEADER = struct.Struct("<BBBBHIHIf")
HEADER_BYTES = _HEADER.size
CRC_BYTES = 4
OVERHEAD_BYTES = HEADER_BYTES + CRC_BYTES
SEAL_OVERHEAD_BYTES = 4 + 16  # a sealed message's counter and tag (seal.py)


class CodecError(TestbedError):
    """Hidden states that can't be encoded, or bytes that are no message of this codec."""


class Envelope(NamedTuple):
    """Whose hidden states they are: the session, its tokens before these, the cut they crossed, and in what mode."""

    session: int = 0
    position: int = 0
    split: int = 0
    mode: int = 0  # 0: stateful server, 1: KV travels, 2: all positions travel


NOBODY = Envelope()


class Codec(Protocol):
    """Hidden states [n, d] float32 to bytes and back.

    `nbytes` is the size of a message of modelled hidden states. Where `is_fixed_size` it equals
    ``len(encode(hidden))`` for every content; elsewhere it is a law stated by the codec, and `nbytes_bound` is never
    exceeded by any content. `decode` raises CodecError, and nothing else, for bytes that `encode` can't have made, or
    that are not for the envelope given, before it allocates anything beyond what a header may claim (`MAX_VALUES`).
    """

    is_fixed_size: bool
    effort: Effort

    def encode(self, hidden_ND: F32Array, envelope: Envelope = NOBODY) -> bytes: ...

    def decode(self, message: bytes, envelope: Envelope | None = None) -> F32Array: ...

    def nbytes(self, num_tokens: int, hidden_size: int) -> int: ...

    def nbytes_bound(self, num_tokens: int, hidden_size: int) -> int: ...


class Header(NamedTuple):
    """The first 20 bytes. `tau` is the split threshold, infinite where nothing is split off."""

    envelope: Envelope
    num_tokens: int
    hidden_size: int
    stage: int
    entropy: int
    has_sparse: bool
    half_sparse: bool  # sparse values travel as bfloat16, because all of them are
    tau: float
    is_rotated: bool = False

    def pack(self) -> bytes:
        """Raises CodecError for a number that has no room."""
        place, counts = self.envelope, self.num_tokens | self.envelope.position << 24
        if not (
            self.num_tokens <= _MAX_U24
            and 0 <= place.position <= _MAX_U24
            and 0 <= place.session <= _MAX_U32
            and 0 <= place.split <= _MAX_U8
            and 0 <= place.mode <= MAX_MODE
        ):
            raise CodecError(f"a message's header has no room for {self.num_tokens} tokens of {place}")
        return _HEADER.pack(
            MAGIC,
            VERSION << 4 | place.mode << 2 | self.half_sparse << 1 | self.is_rotated,
            self.stage & 0x0F | self.entropy << 4 | (self.stage & 0x10) << 2 | self.has_sparse << 7,
            place.split,
            self.hidden_size,
            counts & _MAX_U32,
            counts >> 32,
            place.session,
            self.tau,
        )


def unpack_header(message: bytes) -> Header:
    """The header of a message that is long enough to have one and claims a shape within the limits."""
    if len(message) < OVERHEAD_BYTES:
        raise CodecError(f"a message of {len(message)} bytes is shorter than its header")
    magic, version, kinds, split, hidden_size, low, high, session, tau = _HEADER.unpack_from(message)
    if magic != MAGIC or version >> 4 != VERSION or version >> 2 & 3 > MAX_MODE:
        raise CodecError(f"no message of version {VERSION}: it begins with {message[:2].hex()}")
    counts = low | high << 32
    num_tokens = counts & _MAX_U24
    if num_tokens * hidden_size > MAX_VALUES:
        raise CodecError(f"[{num_tokens}, {hidden_size}] is more than the {MAX_VALUES} values of a message")
    if not tau >= 0:
        raise CodecError("a threshold that is no magnitude")
    return Header(
        envelope=Envelope(session, counts >> 24, split, version >> 2 & 3),
        num_tokens=num_tokens,
        hidden_size=hidden_size,
        stage=kinds & 0x0F | kinds >> 2 & 0x10,
        entropy=kinds >> 4 & 0x03,
        has_sparse=bool(kinds & 0x80),
        half_sparse=bool(version & 2),
        tau=tau,
        is_rotated=bool(version & 1),
    )


def checked(hidden_ND: F32Array) -> F32Array:
    """The array as C-contiguous float32 [n, d] of a size that a message can hold."""
    if hidden_ND.ndim != 2 or hidden_ND.dtype != np.float32:  # noqa: PLR2004
        raise CodecError(f"hidden states are float32 [n, d], but got {hidden_ND.dtype} {list(hidden_ND.shape)}")
    check_shape(*hidden_ND.shape)
    return np.ascontiguousarray(hidden_ND)


def check_shape(num_tokens: int, hidden_size: int) -> None:
    if hidden_size > MAX_HIDDEN_SIZE or num_tokens * hidden_size > MAX_VALUES:
        raise CodecError(f"[{num_tokens}, {hidden_size}] is larger than a message can be")
