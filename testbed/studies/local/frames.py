"""Frames between a device's process and a server's, over a TCP connection each [our design].

    length u32 | kind u8 | request u32 | sent i64 | body

little endian; `length` counts what follows it, `sent` is the sender's monotonic clock in ns, which processes of one
machine share. A connection opens with HELLO, whose body is the run's secret. OPEN announces a request, STEP carries a
codec's message, TOKEN a token id. Whatever else arrives is refused: FrameError, and the receiver closes the connection.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from testbed.core.errors import TestbedError

MAX_BODY_BYTES = 2**26
SECRET_BYTES = 16
_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<BIq")
_OPENING = struct.Struct("<IBIIQ")
_TOKEN = struct.Struct("<I")


class FrameError(TestbedError):
    """Bytes that are no frame, or a frame that is out of place."""


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 0
    OPEN = 1
    STEP = 2
    TOKEN = 3


class Frame(NamedTuple):
    """One frame as it arrived."""

    kind: Kind
    request: int
    sent_ns: int
    body: bytes


class Opening(NamedTuple):
    """What a server is told of a request before its first message."""

    device: int
    split: int
    prompt_tokens: int
    max_output_tokens: int
    sampling_seed: int
    codec: str

    def pack(self) -> bytes:
        return _OPENING.pack(*self[:5]) + self.codec.encode()

    @classmethod
    def unpack(cls, body: bytes) -> Opening:
        """Raises FrameError for a body that is none."""
        try:
            device, split, prompt, most, seed = _OPENING.unpack_from(body)
            return cls(device, split, prompt, most, seed, body[_OPENING.size :].decode())
        except (struct.error, UnicodeDecodeError):
            raise FrameError("a request is opened with numbers that are none") from None


def pack(kind: Kind, request: int, sent_ns: int, body: bytes = b"") -> bytes:
    """A frame's bytes."""
    return _LENGTH.pack(_HEAD.size + len(body)) + _HEAD.pack(kind, request, sent_ns) + body


def pack_token(token: int) -> bytes:
    return _TOKEN.pack(token)


def unpack_token(body: bytes) -> int:
    """Raises FrameError for a body that is no token id."""
    if len(body) != _TOKEN.size:
        raise FrameError(f"a token id has {_TOKEN.size} bytes, not {len(body)}")
    token: int = _TOKEN.unpack(body)[0]
    return token


class FrameReader:
    """Cuts what a connection delivers, in pieces of any size, into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """All frames that are complete now. Raises FrameError as soon as the bytes can be none."""
        self._buffer += data
        frames, at = [], 0
        while len(self._buffer) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, at)
            if not _HEAD.size <= length <= _HEAD.size + MAX_BODY_BYTES:
                raise FrameError(f"a frame of {length} bytes")
            end = at + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            frames.append(_frame(bytes(self._buffer[at + _LENGTH.size : end])))
            at = end
        del self._buffer[:at]
        return frames


def _frame(data: bytes) -> Frame:
    kind, request, sent_ns = _HEAD.unpack_from(data)
    if kind not in Kind.__members__.values():
        raise FrameError(f"a frame of the unknown kind {kind}")
    return Frame(Kind(kind), request, sent_ns, data[_HEAD.size :])
