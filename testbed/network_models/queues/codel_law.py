"""Controlled delay (RFC 8289): who is dropped when a queue has been too long for too long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import isqrt
from typing import NamedTuple

from testbed.network_models.ports.packet import Packet

_RECENT = 16  # intervals since the last drop within which the last rate of drops is a good start


class Waiting(NamedTuple):
    """A packet, and when it came."""

    packet: Packet
    since_ns: int


class CodelQueue:
    """A queue that decides when packets leave it, not when they come.

    Once every packet of an `interval_ns` has waited `target_ns` or longer, packets are dropped instead of sent: one at
    once, the next after the interval, then after interval / sqrt(2), interval / sqrt(3) and so on, until one has waited
    less. A queue of no more than `packet_bytes` is never too long. Intervals are rounded down to whole nanoseconds.
    """

    __slots__ = (
        "_count",
        "_drop_next_ns",
        "_dropping",
        "_first_above_ns",
        "_interval_ns",
        "_last_count",
        "_packet_bytes",
        "_target_ns",
        "_waiting",
        "waiting_bytes",
    )

    def __init__(self, *, target_ns: int, interval_ns: int, packet_bytes: int) -> None:
        self._target_ns, self._interval_ns, self._packet_bytes = target_ns, interval_ns, packet_bytes
        self._waiting: deque[Waiting] | None = None
        self.waiting_bytes = 0
        self._first_above_ns = 0  # when the queue will have been too long for an interval; 0 while it is short
        self._drop_next_ns = 0
        self._count = self._last_count = 0  # drops since dropping began
        self._dropping = False

    def push(self, packet: Packet, now_ns: int) -> None:
        """It waits from now on."""
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(Waiting(packet, now_ns))
        self.waiting_bytes += packet.size_bytes

    def pop(self, now_ns: int, drop: Callable[[Packet], None]) -> Waiting | None:
        """The packet to send now, after those that are dropped now instead."""
        head, is_late = self._take(now_ns)
        if self._dropping:
            self._dropping = is_late
            while head is not None and self._dropping and now_ns >= self._drop_next_ns:
                drop(head.packet)
                head, self._dropping = self._take(now_ns)
                if self._dropping:
                    self._count += 1
                    self._drop_next_ns = self._after(self._drop_next_ns)
        elif head is not None and is_late:
            drop(head.packet)
            head, _ = self._take(now_ns)
            self._dropping = True
            recent = now_ns - self._drop_next_ns < _RECENT * self._interval_ns
            self._count = max(1, self._count - self._last_count) if recent else 1
            self._drop_next_ns = self._after(now_ns)
            self._last_count = self._count
        return head

    def _after(self, time_ns: int) -> int:
        return time_ns + isqrt(self._interval_ns**2 // self._count)

    def _take(self, now_ns: int) -> tuple[Waiting | None, bool]:
        """The first packet, and whether the queue has been too long for an interval."""
        if not self._waiting:
            self._first_above_ns = 0
            return None, False
        head = self._waiting.popleft()
        self.waiting_bytes -= head.packet.size_bytes
        if now_ns - head.since_ns < self._target_ns or self.waiting_bytes <= self._packet_bytes:
            self._first_above_ns = 0
        elif self._first_above_ns == 0:
            self._first_above_ns = now_ns + self._interval_ns
        else:
            return head, now_ns >= self._first_above_ns
        return head, False
