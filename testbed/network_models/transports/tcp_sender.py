"""The sending half of a TCP end: what may be sent, what is lost, when to send again.

Losses, of repeats too, are found by time and by a probe of the tail (RACK-TLP, RFC 8985). The first is sent again at
once, others as the pipe allows (RFC 6675). Congestion control sees one loss a window. When nothing comes back for two
round trips after the last segment, a new one goes or the newest once more. The time-out follows RFC 6298 with Karn's
rule and doubles each time it runs out in a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from testbed.network_models.transports.congestion import Congestion
from testbed.network_models.transports.rack import Rack
from testbed.network_models.transports.ranges import Ranges
from testbed.network_models.transports.round_trip import RoundTrip
from testbed.network_models.transports.stream import Segment
from testbed.network_models.transports.tcp_receiver import TcpAck

DUPLICATES = 3  # acknowledged above a hole: no reordering made it
DELAYED_ACK_NS = 200_000_000  # for which a probe of a lone segment waits besides (RFC 8985, section 7.2)
MOST_TIMEOUT_NS = 60_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpRules:
    """What of a connection's configuration its halves need."""

    segment_bytes: int  # payload of a full one
    min_rto_ns: int
    initial_rto_ns: int
    max_retries: int
    delayed_ack_ns: int
    receive_window_bytes: int | None
    nagle: bool
    restart_idle: bool


class TcpSender:
    """Segments are numbered; `_segments` holds those that the other end has not acknowledged in order."""

    __slots__ = (
        "_acked",
        "_flight_bytes",
        "_is_repairing",
        "_last_sent_ns",
        "_lost",
        "_next",
        "_pipe_bytes",
        "_probe_due",
        "_probe_end",
        "_probe_ns",
        "_probed_ns",
        "_rack",
        "_recovery_end",
        "_rules",
        "_segments",
        "_timeout_ns",
        "_unacked",
        "_urgent",
        "_written",
        "congestion",
        "num_timeouts",
        "round_trip",
    )

    def __init__(self, rules: TcpRules, congestion: Congestion) -> None:
        self._rules = rules
        self.congestion = congestion
        self.round_trip = RoundTrip()
        self._segments: dict[int, Segment] = {}
        self._written = 0  # numbers of segments are below
        self._next = 0  # the first never sent
        self._acked = Ranges()
        self._unacked = 0  # all below are acknowledged
        self._pipe_bytes = 0  # in the network, as far as known
        self._flight_bytes = 0  # sent and not acknowledged in order
        self._lost: deque[int] = deque()  # to be sent again, ascending
        self._rack = Rack()
        self._recovery_end = 0  # loss below it was answered already
        self._is_repairing = False  # fast recovery
        self._urgent = False  # the first lost segment goes whatever the window says
        self._last_sent_ns = -1
        self._timeout_ns = -1  # when the time-out runs out
        self._probe_ns = -1  # when the tail is to be probed
        self._probe_due = False
        self._probe_end = 0  # a probe is out until all below is acknowledged
        self._probed_ns = -1  # when it was sent, if it repeated what was sent before
        self.num_timeouts = 0  # in a row

    def write(self, segments: Iterable[Segment]) -> None:
        """Add to what is to be sent."""
        for segment in segments:
            self._segments[self._written] = segment
            self._written += 1

    @property
    def rto_ns(self) -> int:
        """How long to wait for an acknowledgement before sending again."""
        rules = self._rules
        base_ns = self.round_trip.timeout_ns(rules.initial_rto_ns, rules.min_rto_ns, MOST_TIMEOUT_NS)
        return int(min(MOST_TIMEOUT_NS, base_ns << self.num_timeouts))

    @property
    def deadline_ns(self) -> int:
        """The first of the timers, -1 without any."""
        deadlines = (self._timeout_ns, self._probe_ns, self._rack.deadline_ns)
        return min((deadline for deadline in deadlines if deadline >= 0), default=-1)

    # --- sending -----------------------------------------------------------------------------------------------------

    def next_segment(self, now_ns: int) -> tuple[int, Segment] | None:
        """The segment to send now, if any may go; it counts as sent."""
        self._restart_after_idle(now_ns)
        index = self._next_probe(now_ns) if self._probe_due else self._next_lost()
        if index < 0:
            index = self._next_new()
        if index < 0:
            return None
        segment = self._segments[index]
        is_new = index == self._next
        if is_new:
            self._flight_bytes += segment.payload_bytes
            self._next += 1
        if not segment.in_flight:
            self._pipe_bytes += segment.payload_bytes
        segment.transmit(now_ns)
        self._rack.sent(index, segment)
        self._last_sent_ns = now_ns
        if self._timeout_ns < 0:
            self._timeout_ns = now_ns + self.rto_ns
        if is_new:
            self._arm_probe(now_ns)
        return index, segment

    def _next_probe(self, now_ns: int) -> int:
        """New data if there is any, else the newest segment (RFC 8985, section 7.3)."""
        self._probe_due = False
        can_be_new = self._may_send_new()
        self._probed_ns = -1 if can_be_new else now_ns
        self._probe_end = self._next + can_be_new
        return self._probe_end - 1

    def _arm_probe(self, now_ns: int) -> None:
        """The tail is probed two round trips after it was sent; not while losses are repaired or known."""
        self._probe_ns = -1
        is_known = self._is_repairing or self._unacked < self._recovery_end or len(self._acked) > 1
        if (
            is_known
            or self._unacked < self._probe_end
            or self._unacked == self._next
            or not self.round_trip.smoothed_ns
        ):
            return
        wait_ns = 2 * self.round_trip.smoothed_ns
        if self._next - self._unacked == 1:
            wait_ns += DELAYED_ACK_NS
        self._probe_ns = min(now_ns + wait_ns, self._timeout_ns)

    def _next_lost(self) -> int:
        while self._lost and (self._lost[0] < self._unacked or self._segments[self._lost[0]].acknowledged):
            self._lost.popleft()
        if not self._lost:
            self._urgent = False
            return -1
        if not self._urgent and not self._fits(self._segments[self._lost[0]].payload_bytes):
            return -1
        self._urgent = False
        return self._lost.popleft()

    def _next_new(self) -> int:
        can_go = not self._lost and self._may_send_new() and self._fits(self._segments[self._next].payload_bytes)
        return self._next if can_go else -1

    def _may_send_new(self) -> bool:
        """There is new data, and neither the other end nor Nagle's rule holds it back."""
        if self._next == self._written:
            return False
        size_bytes, window_bytes = self._segments[self._next].payload_bytes, self._rules.receive_window_bytes
        if window_bytes is not None and self._flight_bytes and self._flight_bytes + size_bytes > window_bytes:
            return False
        return not (self._rules.nagle and self._flight_bytes and size_bytes < self._rules.segment_bytes)

    def _fits(self, size_bytes: int) -> bool:
        return self._pipe_bytes + size_bytes <= self.congestion.window_bytes

    def _restart_after_idle(self, now_ns: int) -> None:
        is_idle = self._unacked == self._next < self._written
        if self._rules.restart_idle and is_idle and 0 <= self._last_sent_ns < now_ns - self.rto_ns:
            self.congestion.idle()

    # --- acknowledgements --------------------------------------------------------------------------------------------

    def acknowledged(self, now_ns: int, ack: TcpAck) -> None:
        """The other end says what it has."""
        was_full = self._pipe_bytes + self._rules.segment_bytes > self.congestion.window_bytes
        self._answer_probe(now_ns, ack.cumulative)
        num_bytes, newest = self._mark(now_ns, ack)
        if newest is not None and newest.num_sent == 1:
            self.round_trip.sample(now_ns - newest.sent_ns)
        is_advanced = ack.cumulative > self._unacked
        if is_advanced:
            self._advance(now_ns, ack.cumulative)
        elif newest is not None and newest.sent_ns <= self._segments[self._unacked].sent_ns:
            self._timeout_ns = now_ns + self.rto_ns  # the path is slow, not dead: the oldest was sent even later
        if self._is_repairing and self._unacked >= self._recovery_end:
            self._is_repairing = False
        self._find_losses(now_ns)
        if is_advanced or newest is not None:
            self._arm_probe(now_ns)
        if self._is_repairing or not is_advanced:  # a duplicate opens the window no further (RFC 5681, section 3.2)
            return
        if was_full:
            self.congestion.acknowledged(now_ns, num_bytes, self.round_trip.smoothed_ns)
        else:
            self.congestion.not_limited()

    def _answer_probe(self, now_ns: int, cumulative: int) -> None:
        """A probe that repaired the only loss was congestion all the same (RFC 8985, section 7.4).

        What comes back sooner than any round trip is the answer to the segment that it repeated.
        """
        if self._probed_ns < 0 or cumulative < self._probe_end:
            return
        if self._recovery_end < self._probe_end and now_ns - self._probed_ns >= self.round_trip.least_ns:
            self.congestion.lost(self._in_use_bytes)
        self._probed_ns = -1

    def _mark(self, now_ns: int, ack: TcpAck) -> tuple[int, Segment | None]:
        """Newly acknowledged bytes, and the segment among them that was sent last."""
        num_bytes, newest = 0, None
        for start, stop in ((self._unacked, ack.cumulative), *ack.ranges):
            if start >= stop:
                continue
            for first, last in self._acked.add(start, stop):
                for index in range(first, last):
                    segment = self._segments[index]
                    num_bytes += segment.payload_bytes
                    self._settle(segment)
                    segment.acknowledged = True
                    self._rack.delivered(now_ns, index, segment, self.round_trip.least_ns)
                    if newest is None or segment.sent_ns >= newest.sent_ns:
                        newest = segment
        return num_bytes, newest

    def _settle(self, segment: Segment) -> None:
        """Its last transmission is no longer in the network."""
        if segment.in_flight:
            segment.in_flight = False
            self._pipe_bytes -= segment.payload_bytes

    def _advance(self, now_ns: int, cumulative: int) -> None:
        for index in range(self._unacked, cumulative):
            self._flight_bytes -= self._segments.pop(index).payload_bytes
        self._unacked = cumulative
        self.num_timeouts = 0
        self._timeout_ns = now_ns + self.rto_ns if self._unacked < self._next else -1

    @property
    def _in_use_bytes(self) -> int:
        """What of the window was used; a hole that stays open keeps more in flight than the window."""
        return min(self._flight_bytes, self.congestion.window_bytes)

    def _find_losses(self, now_ns: int) -> None:
        is_sure = self._is_repairing or self._acked.nth_highest(DUPLICATES) >= 0
        found = self._rack.take_losses(
            now_ns, least_ns=self.round_trip.least_ns, smoothed_ns=self.round_trip.smoothed_ns, is_sure=is_sure
        )
        if not found:
            return
        for index in found:
            self._settle(self._segments[index])
        self._lost = deque(sorted({*self._lost, *found}))
        if found[-1] >= self._recovery_end:
            self._recovery_end, self._is_repairing, self._urgent = self._next, True, True
            self.congestion.lost(self._in_use_bytes)

    # --- time-out ----------------------------------------------------------------------------------------------------

    def expire(self, now_ns: int) -> bool:
        """A grace, the wait for a probe or the time-out may have run out; whether the last was once too often."""
        if 0 <= self._rack.deadline_ns <= now_ns:
            self._find_losses(now_ns)
        if 0 <= self._probe_ns <= now_ns:
            self._probe_ns = self._timeout_ns = -1  # the time-out is set anew by the probe
            self._probe_due = True
            return False
        return 0 <= self._timeout_ns <= now_ns and self._time_out()

    def _time_out(self) -> bool:
        """All not acknowledged counts as lost (RFC 6298, section 5)."""
        if not self.num_timeouts:
            self.congestion.collapsed(self._in_use_bytes, self._rules.segment_bytes)
        self.num_timeouts += 1
        outstanding = [index for index in range(self._unacked, self._next) if not self._segments[index].acknowledged]
        for index in outstanding:
            self._settle(self._segments[index])
        self._lost = deque(outstanding)
        self._rack.clear()
        self._recovery_end = self._next
        self._is_repairing, self._urgent = False, True
        self._timeout_ns = self._probe_ns = -1  # set anew by the repeat
        return self.num_timeouts > self._rules.max_retries
