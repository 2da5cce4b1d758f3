"""Messages sealed with authenticated encryption (AEAD): who alters, swaps, repeats or shortens one is found out.

On the wire: a counter of 4 bytes, the encrypted message, a tag of 16. The nonce, 12 bytes, is the direction and the
counter, so it never travels and never repeats under one key. What both ends know anyway, session and split layer, is
authenticated beside it. The primitives, AES-256-GCM (NIST SP 800-38D) and ChaCha20-Poly1305 (RFC 8439), are
`cryptography`'s; how they are put together is our own design.

Session keys are HKDF-SHA256 (RFC 5869) of a secret that stands for what a real deployment exchanges anew for every
session, in TLS say. Here it comes from the run's seed, so that a run repeats itself bit for bit: an emulation of a
key, good for measuring what sealing costs and for nothing that must stay secret.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from testbed.codecs.framing import SEAL_OVERHEAD_BYTES, CodecError
from testbed.core.rng import Stream

KEY_BYTES = 32
TAG_BYTES = 16
_COUNTER = struct.Struct("<I")
_NONCE = struct.Struct("<IQ")  # direction, counter
_IDENTITY = struct.Struct("<BQB")  # version, session, split
_VERSION = 1
_CIPHERS: dict[str, type[AESGCM] | type[ChaCha20Poly1305]] = {"aes-gcm": AESGCM, "chacha20": ChaCha20Poly1305}


class SealError(CodecError):
    """A message that the session's key doesn't open here and now, or a key that is none."""


class Way(IntEnum):
    """Which end sealed a message."""

    UP = 0
    DOWN = 1


def run_secret(seed: int) -> bytes:
    """What the two ends of every session of a run have in common, from the run's seed."""
    stream = Stream.named(seed, "seal.secret")
    return struct.pack("<4Q", *(stream.u64(0, counter) for counter in range(4)))


def session_key(secret: bytes, session: int) -> bytes:
    """The key of one session. Raises SealError where there is no secret."""
    if not secret:
        raise SealError("the session has no key")
    info = b"testbed session " + struct.pack("<Q", session)
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


class Seal:
    """One direction of one session; an end holds one for what it sends and another for what it gets.

    Counters rise with every message sealed or opened: a message opens once, and none opens after a later one.
    """

    def __init__(self, suite: str, key: bytes, *, session: int, split: int, way: Way = Way.UP) -> None:
        if len(key) != KEY_BYTES:
            raise SealError(f"a key has {KEY_BYTES} bytes, but got {len(key)}")
        self._cipher = _CIPHERS[suite](key)
        self._identity = _IDENTITY.pack(_VERSION, session, split)
        self._way = way
        self._last = -1

    def seal(self, message: bytes, counter: int) -> bytes:
        """The message as it travels. Raises SealError for a counter that isn't above the last: never twice a nonce."""
        self._rise(counter)
        sealed = self._cipher.encrypt(_NONCE.pack(self._way, counter), message, self._identity)
        return _COUNTER.pack(counter) + sealed

    def open(self, sealed: bytes) -> bytes:
        """The message that was sealed. Raises SealError, and takes note of nothing, for any other bytes."""
        if len(sealed) < SEAL_OVERHEAD_BYTES:
            raise SealError(f"{len(sealed)} bytes are too few for a sealed message")
        (counter,) = _COUNTER.unpack_from(sealed)
        if counter <= self._last:
            raise SealError(f"message {counter} comes after message {self._last}: repeated or out of order")
        try:
            nonce = _NONCE.pack(self._way, counter)
            message = self._cipher.decrypt(nonce, sealed[_COUNTER.size :], self._identity)
        except InvalidTag:
            raise SealError("the message is not authentic: altered, cut, or of another session or key") from None
        self._last = counter
        return message

    def _rise(self, counter: int) -> None:
        if not self._last < counter < 2**32:
            raise SealError(f"counter {counter} does not follow {self._last}")
        self._last = counter
