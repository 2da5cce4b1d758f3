"""The halves of a QUIC end alone, told the time: one-kilobyte segments, 20 in the window."""

from __future__ import annotations

from itertools import count

from testbed.network_models.transports.congestion import Reno
from testbed.network_models.transports.quic_receiver import QuicAck, QuicReceiver
from testbed.network_models.transports.quic_sender import QuicRules, QuicSender
from testbed.network_models.transports.stream import Message, Segment

SIZE, MS = 1000, 1_000_000
RULES = QuicRules(
    segment_bytes=SIZE,
    initial_bytes=1228,
    ack_bytes=63,
    zero_rtt=True,
    ack_delay_ns=25 * MS,
    idle_timeout_ns=30_000 * MS,
)


class Sending:
    """A sender with its packet numbers."""

    def __init__(self, num_segments):
        self.half = QuicSender(RULES, Reno(SIZE, 20))
        message = Message(number=0, payload_bytes=0, num_packets=num_segments, sent_ns=0, missing=num_segments)
        self.half.write(Segment(message, SIZE, is_last=False) for _ in range(num_segments))
        self.numbers = count()

    def go(self, now_ms):
        """How many packets go now."""
        return sum(1 for _ in iter(lambda: self.half.next_segment(now_ms * MS, self.half_number()), None))

    def half_number(self):
        self.number = next(self.numbers)
        return self.number

    def ack(self, now_ms, *ranges, delay_ms=0):
        self.half.acknowledged(now_ms * MS, QuicAck(ranges, delay_ms * MS))

    @property
    def window_bytes(self):
        return self.half.congestion.window_bytes


def test_losses_of_what_was_sent_before_the_reduction_are_the_same_loss():
    sending = Sending(500)
    assert sending.go(0) == 20
    sending.ack(100, (1, 5))  # 0 and 1 are three and more below 4
    assert sending.window_bytes == 10 * SIZE
    sending.ack(101, (1, 5), (10, 20))  # 5 to 9 too
    assert sending.window_bytes == 10 * SIZE
    assert sending.go(101) == 10
    first = sending.number - 10  # of these ten
    sending.ack(201, (first + 5, first + 10))
    assert sending.window_bytes == 5 * SIZE


def test_what_was_sent_before_the_reduction_does_not_make_the_window_grow():
    sending = Sending(500)
    sending.go(0)
    sending.ack(100, (1, 5))
    sending.go(100)
    sending.half.congestion.threshold_bytes = 1 << 40  # slow start would show every byte
    sending.ack(101, (5, 20))
    assert sending.window_bytes == 10 * SIZE


def test_nothing_for_three_probe_time_outs_is_persistent_congestion():
    sending = Sending(500)
    sending.go(0)
    sending.ack(100, (0, 20))
    sending.go(100)
    span_ms = 3 * sending.half.probe_ns // MS
    probes, now_ms = 0, 100
    while now_ms <= 100 + span_ms:
        now_ms = -(-sending.half.deadline_ns // MS)
        sending.half.expire(now_ms * MS)
        probes += sending.go(now_ms)
    assert probes > 1
    last = sending.number - 1
    sending.ack(now_ms + 100, (0, 20), (last, last + 1))  # the last probe alone has come
    assert sending.window_bytes == 2 * SIZE


def test_a_shorter_silence_halves_the_window():
    sending = Sending(40)
    sending.go(0)
    sending.ack(100, (0, 20))
    assert sending.go(100) == 20
    sending.half.expire(sending.half.deadline_ns)
    sending.go(400)
    last = sending.number - 1
    sending.ack(500, (0, 20), (last, last + 1))
    assert sending.window_bytes == 20 * SIZE


def test_the_round_trip_leaves_out_how_long_the_other_end_waited():
    sending = Sending(3)
    sending.go(0)
    sending.ack(100, (0, 1))
    sending.ack(120, (0, 2), delay_ms=20)
    assert sending.half.round_trip.smoothed_ns == 100 * MS
    sending.ack(120, (0, 3), delay_ms=90)  # never more than it said it would
    assert sending.half.round_trip.latest_ns == 120 * MS  # nor so much that the path gets shorter than it is


def test_every_second_packet_is_acknowledged_at_once_and_one_out_of_order_too():
    half = QuicReceiver(25 * MS)
    wanted = []
    for number in (0, 1, 2, 4, 3):
        half.receive(number * MS, number, wants_ack=True)
        wanted.append(half.wants_ack)
        if half.wants_ack:
            assert half.acknowledge(number * MS).delay_ns <= MS
    assert wanted == [False, True, False, True, True]
    half.receive(10 * MS, 5, wants_ack=False)  # an acknowledgement alone asks for none
    assert (half.wants_ack, half.deadline_ns) == (False, -1)
    half.receive(11 * MS, 6, wants_ack=True)
    half.expire(36 * MS - 1)
    assert not half.wants_ack
    half.expire(36 * MS)
    assert half.wants_ack
    assert half.acknowledge(36 * MS) == QuicAck(((0, 7),), 25 * MS)
