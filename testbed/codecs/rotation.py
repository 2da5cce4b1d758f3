"""Rotation [our design, as a row to compare with]: spread each value over its whole token before quantising.

A massive value then raises every quantised value a little instead of one step a lot. The matrix is orthonormal, so
errors keep their size on the way back.
"""

from __future__ import annotations

import numpy as np

from testbed.codecs.compiling import announce, kernels
from testbed.codecs.framing import CodecError, F32Array, U8Array
from testbed.core.rng import Stream

_STREAM = "codec.rotation.signs"


class Rotation:
    """Walsh-Hadamard blocks, and before them, where a key is given, a fixed random sign for each channel.

    Both sides draw the signs from the key. Messages don't name it; a checksum started with it tells keys apart.
    """

    def __init__(self, key: int | None = None) -> None:
        self._key = key
        self._signs_D = np.empty(0, np.float32)

    def crc_start(self, crc: int) -> int:
        """The checksum's start, continued with the key."""
        if self._key is None:
            return crc
        data: U8Array = np.frombuffer(_STREAM.encode() + self._key.to_bytes(8, "little"), np.uint8)
        return kernels().crc32c(data, crc)

    def rotated(self, below_ND: F32Array) -> F32Array:
        """Raises CodecError for a row with a value too large to be added up, beyond 2^127 / sqrt(d) or so."""
        announce("kernel_rotation")
        with np.errstate(over="ignore", invalid="ignore"):
            rotated_ND = kernels().hadamard(self._signed(below_ND))
        if not np.isfinite(rotated_ND).all():
            raise CodecError("values too large to rotate")
        return rotated_ND

    def restored(self, rotated_ND: F32Array) -> F32Array:
        with np.errstate(over="ignore", invalid="ignore"):  # scales of a forged message may be anything finite
            return self._signed(kernels().hadamard(rotated_ND))

    def _signed(self, hidden_ND: F32Array) -> F32Array:
        return hidden_ND if self._key is None else hidden_ND * self._signs(self._key, hidden_ND.shape[1])

    def _signs(self, key: int, hidden_size: int) -> F32Array:
        if self._signs_D.size != hidden_size:
            drawn_D = Stream.named(key, _STREAM).u64_run(0, 0, hidden_size) >> np.uint64(63)
            self._signs_D = np.where(drawn_D > 0, np.float32(-1), np.float32(1))
        return self._signs_D
