"""The receiving half of a TCP end: order, and acknowledgements."""

from __future__ import annotations

from typing import NamedTuple

from testbed.network_models.transports.ranges import Ranges
from testbed.network_models.transports.stream import Message, Segment


class TcpAck(NamedTuple):
    """Everything below `cumulative` has arrived, and of what follows these ranges (RFC 2018)."""

    cumulative: int
    ranges: tuple[tuple[int, int], ...]


class TcpReceiver:
    """Puts segments in order and says when to acknowledge (RFC 5681, section 4.2).

    Every second segment is acknowledged at once, a single one after `delay_ns`; what is out of order, fills a gap or
    came twice at once too.
    """

    __slots__ = (
        "_ack_now",
        "_delay_ns",
        "_ends",
        "_next",
        "_num_waiting",
        "_received",
        "deadline_ns",
    )

    def __init__(self, delay_ns: int) -> None:
        self._delay_ns = delay_ns
        self._received = Ranges()
        self._next = 0
        self._ends: dict[int, Message] = {}  # of messages whose last segment is here: its place -> message
        self._num_waiting = 0
        self._ack_now = False
        self.deadline_ns = -1  # of the delayed acknowledgement

    def receive(self, now_ns: int, index: int, segment: Segment) -> bool:
        """A segment is here; whether it is new."""
        fresh = self._received.add(index, index + 1)
        if fresh and segment.is_last:
            self._ends[index] = segment.message
        in_order = index == self._next == self._received.prefix - 1
        self._num_waiting += 1
        if not fresh or not in_order or self._num_waiting > 1 or not self._delay_ns or self._has_gaps:
            self._ack_now = True
        elif self.deadline_ns < 0:
            self.deadline_ns = now_ns + self._delay_ns
        return bool(fresh)

    @property
    def _has_gaps(self) -> bool:
        return len(self._received) > 1

    def in_order(self) -> list[Message]:
        """The messages that are complete with nothing missing before them, since last asked."""
        first, self._next = self._next, self._received.prefix
        return [self._ends.pop(index) for index in range(first, self._next) if index in self._ends]

    def expire(self, now_ns: int) -> None:
        """The delayed acknowledgement may be due."""
        if 0 <= self.deadline_ns <= now_ns:
            self._ack_now, self.deadline_ns = True, -1

    def ask_for_ack(self) -> None:
        """The other end waits for an answer."""
        self._ack_now = True

    @property
    def wants_ack(self) -> bool:
        return self._ack_now

    def acknowledge(self) -> TcpAck:
        """What to say now, alone or on a segment that goes the other way."""
        self._ack_now, self._num_waiting, self.deadline_ns = False, 0, -1
        cumulative = self._received.prefix
        ranges = self._received.pairs()
        return TcpAck(cumulative, ranges[1:] if cumulative else ranges)
