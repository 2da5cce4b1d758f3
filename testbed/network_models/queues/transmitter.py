"""The sending end of a link: a FIFO queue with a byte limit, drained at the link's rate."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from testbed.network_models.rates.segments import Rate, finish_ns, num_finished, packet_ns


class Burst(NamedTuple):
    """What of one round the queue took: full-size packets, then perhaps the message's last, smaller one.

    The first bit leaves at `start_ns`, the last at `end_ns`; where nothing was taken both are the time of asking.
    """

    start_ns: int
    end_ns: int
    num_full: int
    took_last: bool
    wire_bytes: int


class Transmitter:
    """Packets leave in the order offered, each in its own whole number of nanoseconds (rounded up).

    A packet holds its bytes in the queue until its last bit has left; one that leaves at t has made room for what is
    offered at t. A packet that doesn't fit when it is offered is dropped (drop-tail); a smaller one behind it may fit.
    Start times follow Lindley's recursion, start = max(now, end of the packet before), so a burst needs no event.
    """

    __slots__ = (
        "_busy_total_ns",
        "_busy_until_ns",
        "_full_ns",
        "_held_bytes",
        "_known_bps",
        "_limit_bytes",
        "_packet_bytes",
        "_rate",
        "_waiting",
        "peak_backlog_bytes",
    )

    def __init__(self, rate: Rate, *, limit_bytes: int, packet_bytes: int) -> None:
        self._rate = rate
        self._limit_bytes = limit_bytes
        self._packet_bytes = packet_bytes  # a full-size one
        self._busy_until_ns = 0
        self._busy_total_ns = 0
        self._waiting: deque[Burst] | None = None  # made when needed: most links of a fleet are idle
        self._known_bps = self._full_ns = 0  # what a full-size packet takes at the rate met last
        self._held_bytes = 0  # of all bursts in `_waiting`, whole
        self.peak_backlog_bytes = 0

    def offer(self, now_ns: int, num_full: int, last_bytes: int) -> Burst:
        """Hand over `num_full` full-size packets and then one of `last_bytes` (0: none), back to back."""
        wire_bytes = num_full * self._packet_bytes
        backlog_bytes = self._about_backlog_bytes(now_ns, wire_bytes + last_bytes) if self._waiting else 0
        room_bytes = self._limit_bytes - backlog_bytes
        if wire_bytes > room_bytes:
            num_full = room_bytes // self._packet_bytes
            wire_bytes = num_full * self._packet_bytes
        took_last = 0 < last_bytes <= room_bytes - wire_bytes
        if took_last:
            wire_bytes += last_bytes
        elif not num_full:
            return Burst(now_ns, now_ns, 0, took_last=False, wire_bytes=0)
        start_ns = max(now_ns, self._busy_until_ns)
        end_ns = self._end_ns(start_ns, num_full, last_bytes if took_last else 0)
        burst = Burst(start_ns, end_ns, num_full, took_last, wire_bytes)
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(burst)
        self._held_bytes += wire_bytes
        self._busy_until_ns = end_ns
        self._busy_total_ns += end_ns - start_ns
        self.peak_backlog_bytes = max(self.peak_backlog_bytes, backlog_bytes + wire_bytes)
        return burst

    def _end_ns(self, start_ns: int, num_full: int, last_bytes: int) -> int:
        rate_bps, until_ns = self._rate.segment(start_ns)
        if rate_bps:  # mostly all leave at one rate
            if rate_bps != self._known_bps:
                self._known_bps, self._full_ns = rate_bps, packet_ns(self._packet_bytes, rate_bps)
            end_ns = start_ns + num_full * self._full_ns
            if last_bytes:
                end_ns += packet_ns(last_bytes, rate_bps)
            if end_ns <= until_ns:
                return end_ns
        end_ns = finish_ns(self._rate, start_ns, self._packet_bytes, num_full)
        return finish_ns(self._rate, end_ns, last_bytes) if last_bytes else end_ns

    def left_ns(self, burst: Burst, place: int) -> int:
        """When the last bit left of the burst's full-size packet number `place`, from 0."""
        return finish_ns(self._rate, burst.start_ns, self._packet_bytes, place + 1)

    def _about_backlog_bytes(self, now_ns: int, more_bytes: int) -> int:
        """The backlog; or no less than it, where so many bytes more fit all the same and make no new peak."""
        self._forget(now_ns)
        if self._held_bytes + more_bytes <= self.peak_backlog_bytes:
            return self._held_bytes
        return self.backlog_bytes(now_ns)

    def _forget(self, now_ns: int) -> None:
        """Bursts whose last bit has left."""
        waiting = self._waiting
        while waiting and waiting[0].end_ns <= now_ns:
            self._held_bytes -= waiting.popleft().wire_bytes

    def backlog_bytes(self, now_ns: int) -> int:
        """Bytes of the packets whose last bit has not left by now. Time must not run backwards between calls."""
        self._forget(now_ns)
        if not self._waiting:
            return 0
        head = self._waiting[0]
        num_gone = num_finished(self._rate, head.start_ns, self._packet_bytes, now_ns) if head.num_full else 0
        return self._held_bytes - min(head.num_full, num_gone) * self._packet_bytes

    def busy_ns(self, now_ns: int) -> int:
        """Time spent sending until now."""
        return self._busy_total_ns - max(0, self._busy_until_ns - now_ns)
