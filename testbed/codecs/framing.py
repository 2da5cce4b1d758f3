"""What every message at the cut begins with, and the one error a bad message raises."""

from __future__ import annotations

import struct
from typing import Protocol

import numpy as np
import numpy.typing as npt

from testbed.core.errors import TestbedError

F32Array = npt.NDArray[np.float32]

_HEADER = struct.Struct("<II")  # tokens n, hidden size d
HEADER_BYTES = _HEADER.size


class CodecError(TestbedError):
    """Hidden states that can't be encoded, or bytes that are no message of this codec."""


class Codec(Protocol):
    """Hidden states [n, d] float32 to bytes and back.

    `nbytes(n, d)` equals ``len(encode(hidden))`` for every content. `decode` raises CodecError, and nothing else, for
    bytes that `encode` can't have made, before it allocates anything of the claimed size.
    """

    def encode(self, hidden_ND: F32Array) -> bytes: ...

    def decode(self, message: bytes) -> F32Array: ...

    def nbytes(self, num_tokens: int, hidden_size: int) -> int: ...


def frame(hidden_ND: F32Array, *body: bytes) -> bytes:
    """The header followed by the body's parts."""
    return b"".join((_HEADER.pack(*hidden_ND.shape), *body))


def unframe(message: bytes, codec: Codec) -> tuple[int, int, memoryview]:
    """(n, d, body) of a message whose length is what the codec's size law says."""
    if len(message) < HEADER_BYTES:
        raise CodecError(f"a message of {len(message)} bytes is shorter than its header")
    num_tokens, hidden_size = _HEADER.unpack_from(message)
    expected = codec.nbytes(num_tokens, hidden_size)
    if len(message) != expected:
        raise CodecError(f"{len(message)} bytes for [{num_tokens}, {hidden_size}], which takes {expected}")
    return num_tokens, hidden_size, memoryview(message)[HEADER_BYTES:]


def checked(hidden_ND: F32Array) -> F32Array:
    """The array as C-contiguous float32 [n, d]."""
    if hidden_ND.ndim != 2 or hidden_ND.dtype != np.float32:  # noqa: PLR2004
        raise CodecError(f"hidden states are float32 [n, d], but got {hidden_ND.dtype} {list(hidden_ND.shape)}")
    return np.ascontiguousarray(hidden_ND)
