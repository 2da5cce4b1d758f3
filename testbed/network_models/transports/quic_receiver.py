"""The receiving half of a QUIC end: which packets came, and when to say so (RFC 9000, section 13.2)."""

from __future__ import annotations

from typing import NamedTuple

from testbed.network_models.transports.ranges import Ranges

ACK_EVERY = 2  # packets that want an acknowledgement
MOST_RANGES = 32


class QuicAck(NamedTuple):
    """Packet numbers that arrived, ascending ranges; how long the highest has waited to be acknowledged."""

    ranges: tuple[tuple[int, int], ...]
    delay_ns: int


class QuicReceiver:
    """Every second packet is acknowledged at once, a single one after `delay_ns`, one out of order at once too."""

    __slots__ = (
        "_ack_now",
        "_delay_ns",
        "_highest",
        "_highest_ns",
        "_num_waiting",
        "_received",
        "deadline_ns",
    )

    def __init__(self, delay_ns: int) -> None:
        self._delay_ns = delay_ns
        self._received = Ranges()
        self._highest = -1
        self._highest_ns = 0
        self._num_waiting = 0
        self._ack_now = False
        self.deadline_ns = -1

    def receive(self, now_ns: int, number: int, *, wants_ack: bool) -> None:
        """A packet is here."""
        in_order = number == self._highest + 1
        self._received.add(number, number + 1)
        self._received.keep_highest(MOST_RANGES)
        if number > self._highest:
            self._highest, self._highest_ns = number, now_ns
        if not wants_ack:
            return
        self._num_waiting += 1
        if not in_order or self._num_waiting >= ACK_EVERY or not self._delay_ns:
            self._ack_now = True
        elif self.deadline_ns < 0:
            self.deadline_ns = now_ns + self._delay_ns

    def expire(self, now_ns: int) -> None:
        """The delayed acknowledgement may be due."""
        if 0 <= self.deadline_ns <= now_ns:
            self._ack_now, self.deadline_ns = True, -1

    @property
    def wants_ack(self) -> bool:
        return self._ack_now

    def acknowledge(self, now_ns: int) -> QuicAck:
        """What to say now, alone or beside data."""
        self._ack_now, self._num_waiting, self.deadline_ns = False, 0, -1
        return QuicAck(self._received.pairs(), now_ns - self._highest_ns)
