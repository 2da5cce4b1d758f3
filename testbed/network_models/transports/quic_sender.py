"""The sending half of a QUIC end: loss detection and congestion control (RFC 9002).

A packet is lost when one sent three later was acknowledged, or one sent later and 9/8 of a round trip have passed. What
it carried goes again in a packet with a number of its own, so every acknowledgement measures a round trip and a lost
repeat is found as any other. When nothing comes back for a probe time-out, a probe is sent whatever the window says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from testbed.network_models.transports.congestion import Congestion
from testbed.network_models.transports.quic_receiver import QuicAck
from testbed.network_models.transports.ranges import Ranges
from testbed.network_models.transports.round_trip import RoundTrip
from testbed.network_models.transports.stream import Message, Segment

PACKET_THRESHOLD = 3
GRANULARITY_NS = 1_000_000
INITIAL_PROBE_NS = 999_000_000  # of a round trip not measured yet: 333 ms and four times half of it
PERSISTENT = 3  # probe time-outs without any acknowledgement that mean persistent congestion
_REMEMBERED = 256  # ranges of acknowledged packets


@dataclass(frozen=True, slots=True, kw_only=True)
class QuicRules:
    """What of a connection's configuration its halves need."""

    segment_bytes: int
    initial_bytes: int  # a datagram of the handshake
    ack_bytes: int  # a datagram with one range to acknowledge
    zero_rtt: bool
    ack_delay_ns: int
    idle_timeout_ns: int


class _Sent(NamedTuple):
    segment: Segment
    sent_ns: int


class QuicSender:
    """`_sent` holds the packets neither acknowledged nor lost, by ascending number."""

    __slots__ = (
        "_acked",
        "_again",
        "_flight_bytes",
        "_highest_acked",
        "_last_sent_ns",
        "_loss_ns",
        "_num_probes",
        "_probe_due",
        "_recovery_ns",
        "_rules",
        "_sent",
        "_unsent",
        "congestion",
        "round_trip",
    )

    def __init__(self, rules: QuicRules, congestion: Congestion) -> None:
        self._rules = rules
        self.congestion = congestion
        self.round_trip = RoundTrip()
        self._unsent: deque[Segment] = deque()
        self._again: deque[Segment] = deque()
        self._sent: dict[int, _Sent] = {}
        self._acked = Ranges()
        self._highest_acked = -1
        self._flight_bytes = 0
        self._recovery_ns = -1  # what was sent until then has no say in the window any more
        self._last_sent_ns = 0
        self._loss_ns = -1  # the next loss by time
        self._num_probes = 0  # in a row
        self._probe_due = False

    def write(self, segments: Iterable[Segment]) -> None:
        """Add to what is to be sent, behind all messages before it."""
        self._unsent.extend(segments)

    def forget(self, message: Message) -> None:
        """Send nothing of this message any more."""
        self._unsent = deque(segment for segment in self._unsent if segment.message is not message)
        self._again = deque(segment for segment in self._again if segment.message is not message)
        for sent in self._sent.values():
            if sent.segment.message is message:
                sent.segment.acknowledged = True  # so it is not repeated

    @property
    def deadline_ns(self) -> int:
        if self._loss_ns >= 0 or not self._sent:
            return self._loss_ns
        return self._last_sent_ns + (self.probe_ns << self._num_probes)

    @property
    def is_waiting(self) -> bool:
        """Whether an acknowledgement is outstanding."""
        return bool(self._sent)

    @property
    def probe_ns(self) -> int:
        """The probe time-out, not backed off (RFC 9002, section 6.2.1)."""
        if not self.round_trip.smoothed_ns:
            return INITIAL_PROBE_NS
        variation_ns = max(4 * self.round_trip.variation_ns, GRANULARITY_NS)
        return self.round_trip.smoothed_ns + variation_ns + self._rules.ack_delay_ns

    # --- sending -----------------------------------------------------------------------------------------------------

    def next_segment(self, now_ns: int, number: int) -> Segment | None:
        """The segment to send now as packet `number`, if any may go; it counts as sent."""
        segment = self._choose()
        if segment is None:
            return None
        self._flight_bytes += segment.payload_bytes
        segment.transmit(now_ns)
        self._sent[number] = _Sent(segment, now_ns)
        self._last_sent_ns = now_ns
        return segment

    def _choose(self) -> Segment | None:
        while self._again and self._again[0].acknowledged:
            self._again.popleft()
        queue = self._again or self._unsent
        if self._probe_due:
            self._probe_due = False
            return queue.popleft() if queue else next(iter(self._sent.values())).segment
        if not queue or self._flight_bytes + queue[0].payload_bytes > self.congestion.window_bytes:
            return None
        return queue.popleft()

    # --- acknowledgements --------------------------------------------------------------------------------------------

    def acknowledged(self, now_ns: int, ack: QuicAck) -> None:
        """The other end says what it has."""
        was_full = self._flight_bytes + self._rules.segment_bytes > self.congestion.window_bytes
        highest = ack.ranges[-1][1] - 1
        newly = self._mark(ack)
        if not newly:
            return
        if newly[-1][0] == highest:
            self._sample(now_ns - newly[-1][1].sent_ns, min(ack.delay_ns, self._rules.ack_delay_ns))
        self._highest_acked = max(self._highest_acked, highest)
        self._num_probes = 0
        self._find_losses(now_ns)
        num_bytes = sum(sent.segment.payload_bytes for _, sent in newly if sent.sent_ns > self._recovery_ns)
        if num_bytes and was_full:
            self.congestion.acknowledged(now_ns, num_bytes, self.round_trip.smoothed_ns)
        elif num_bytes:
            self.congestion.not_limited()

    def _mark(self, ack: QuicAck) -> list[tuple[int, _Sent]]:
        newly = []
        for start, stop in ack.ranges:
            for first, last in self._acked.add(start, stop):
                for number in range(first, last):
                    sent = self._sent.pop(number, None)
                    if sent is not None:
                        newly.append((number, sent))
                        sent.segment.acknowledged = True
                        self._flight_bytes -= sent.segment.payload_bytes
        self._acked.keep_highest(_REMEMBERED)
        return newly

    def _sample(self, round_trip_ns: int, delay_ns: int) -> None:
        """The other end's own delay does not count, unless that would make the path shorter than it can be."""
        has_room = self.round_trip.smoothed_ns and round_trip_ns >= self.round_trip.least_ns + delay_ns
        self.round_trip.sample(round_trip_ns - delay_ns if has_room else round_trip_ns)

    def _find_losses(self, now_ns: int) -> None:
        round_trip_ns = max(self.round_trip.latest_ns, self.round_trip.smoothed_ns)
        patience_ns = max(round_trip_ns * 9 // 8, GRANULARITY_NS)
        lost: list[int] = []
        self._loss_ns = -1
        for number, sent in self._sent.items():
            if number >= self._highest_acked:
                break
            if number <= self._highest_acked - PACKET_THRESHOLD or sent.sent_ns + patience_ns <= now_ns:
                lost.append(number)
            elif self._loss_ns < 0:
                self._loss_ns = sent.sent_ns + patience_ns
        if lost:
            self._take_losses(now_ns, lost)

    def _take_losses(self, now_ns: int, numbers: list[int]) -> None:
        sent = [self._sent.pop(number) for number in numbers]
        for item in sent:
            self._flight_bytes -= item.segment.payload_bytes
            if not item.segment.acknowledged:
                self._again.append(item.segment)
        if sent[-1].sent_ns <= self._recovery_ns:
            return
        self._recovery_ns = now_ns
        span_ns = sent[-1].sent_ns - sent[0].sent_ns
        if span_ns > PERSISTENT * self.probe_ns and not self._acked.overlaps(numbers[0], numbers[-1]):
            self.congestion.collapsed(self.congestion.window_bytes, 2 * self._rules.segment_bytes)
        else:
            self.congestion.lost(self.congestion.window_bytes)

    # --- time --------------------------------------------------------------------------------------------------------

    def expire(self, now_ns: int) -> None:
        """A loss by time, or the probe time-out, may be due."""
        if not 0 <= self.deadline_ns <= now_ns:
            return
        if self._loss_ns >= 0:
            self._find_losses(now_ns)
        else:
            self._num_probes += 1
            self._probe_due = True
            self._last_sent_ns = now_ns
