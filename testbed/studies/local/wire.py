"""A connection's two ends, and the link that it emulates.

The emulated link is imposed where a message arrives: one that was sent at s counts as arrived at
``max(s, end of the one before) + serialisation + delay`` by the sender's stamp, and no earlier than it was read. So
neither side needs timers, and a side that computes meanwhile delays nothing but itself.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field

from testbed.core.units import BITS_PER_BYTE, NS_PER_S
from testbed.studies.local.frames import FrameError, FrameReader

_READ_BYTES = 2**18


def now_ns() -> int:
    """The clock that all processes of this machine share."""
    return time.monotonic_ns()


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedRate:
    """One direction of a link of constant rate; a rate of 0 imposes nothing but the delay."""

    rate_bps: int
    delay_ns: int
    mtu_bytes: int
    header_bytes: int

    def serialise_ns(self, message_bytes: int) -> int:
        """The bits of a message's packets, headers included, onto the link."""
        if not self.rate_bps:
            return 0
        packets = -(-message_bytes // (self.mtu_bytes - self.header_bytes))
        bits = BITS_PER_BYTE * (message_bytes + packets * self.header_bytes)
        return -(-bits * NS_PER_S // self.rate_bps)


@dataclass(slots=True)
class Pace:
    """When messages of one direction arrive."""

    rate: PacedRate
    _free_ns: int = 0

    def arrival_ns(self, sent_ns: int, message_bytes: int) -> int:
        self._free_ns = max(sent_ns, self._free_ns) + self.rate.serialise_ns(message_bytes)
        return self._free_ns + self.rate.delay_ns


@dataclass(slots=True, eq=False)
class Connection:
    """One end of a device's connection; `pace` is of what arrives here."""

    sock: socket.socket
    pace: Pace
    reader: FrameReader = field(default_factory=FrameReader)

    def fileno(self) -> int:
        return self.sock.fileno()

    def read(self) -> bytes:
        """What is there. Raises FrameError where the other end has closed."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except OSError as error:
            raise FrameError(f"the connection broke: {error.strerror or error}") from None
        if not data:
            raise FrameError("the other end closed the connection")
        return data

    def send(self, frame: bytes) -> None:
        """Raises FrameError where the other end is gone."""
        try:
            self.sock.sendall(frame)
        except OSError as error:
            raise FrameError(f"the connection broke: {error.strerror or error}") from None


def tuned(sock: socket.socket) -> socket.socket:
    """No waiting for more to send, and room for a long prompt's hidden states."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 2**22)
    return sock
