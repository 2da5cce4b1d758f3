"""The sending half of TCP alone, told the time and the acknowledgements: one-kilobyte segments, 20 in the window."""

from __future__ import annotations

import pytest

from testbed.network_models.transports.congestion import Reno
from testbed.network_models.transports.stream import Message, Segment
from testbed.network_models.transports.tcp_receiver import TcpAck, TcpReceiver
from testbed.network_models.transports.tcp_sender import TcpRules, TcpSender

SIZE, MS = 1000, 1_000_000
WINDOW = 20


def make(num_segments, **changes):
    rules = {
        "segment_bytes": SIZE,
        "min_rto_ns": 200 * MS,
        "initial_rto_ns": 1000 * MS,
        "max_retries": 3,
        "delayed_ack_ns": 0,
        "receive_window_bytes": None,
        "nagle": False,
        "restart_idle": True,
        **changes,
    }
    sender = TcpSender(TcpRules(**rules), Reno(SIZE, WINDOW))
    message = Message(number=0, payload_bytes=0, num_packets=num_segments, sent_ns=0, missing=num_segments)
    sender.write(Segment(message, SIZE, is_last=False) for _ in range(num_segments))
    return sender


def sent(sender, now_ms):
    """The numbers of all segments that go now."""
    return [found[0] for found in iter(lambda: sender.next_segment(now_ms * MS), None)]


def window(sender):
    return sender.congestion.window_bytes // SIZE


def test_a_window_of_losses_is_one_loss():
    sender = make(200)
    assert sent(sender, 0) == list(range(20))
    sender.acknowledged(100 * MS, TcpAck(0, ((1, 4),)))  # three above the first
    assert window(sender) == 10
    assert sent(sender, 100) == [0]  # at once, though more is in flight than the window allows
    sender.acknowledged(110 * MS, TcpAck(0, ((1, 4), (8, 20))))  # 4 to 7 are lost as well
    assert window(sender) == 10
    # In the network: the repeat alone. The window lets nine more go: what is lost first, then new segments.
    assert sent(sender, 110) == [4, 5, 6, 7, 20, 21, 22, 23, 24]


def test_what_is_lost_after_the_repair_began_is_another_loss():
    sender = make(200)
    sent(sender, 0)
    sender.acknowledged(100 * MS, TcpAck(0, ((1, 20),)))
    assert sent(sender, 100) == [0, *range(20, 29)]
    sender.acknowledged(200 * MS, TcpAck(20, ((21, 25),)))
    # 20 is lost, with nine in flight.
    assert sender.congestion.window_bytes == 4500
    sender.acknowledged(210 * MS, TcpAck(20, ((21, 29),)))
    assert sender.congestion.window_bytes == 4500


def test_a_hole_that_stays_open_does_not_count_as_a_larger_window():
    sender = make(200)
    sent(sender, 0)
    sender.acknowledged(100 * MS, TcpAck(0, ((1, 20),)))
    assert sent(sender, 100) == [0, *range(20, 29)]  # the repeat of the first is lost too
    sender.acknowledged(200 * MS, TcpAck(0, ((1, 22), (23, 29))))  # and so is 22, found while the first is missing
    assert window(sender) == 5  # half of 10, not of all 29 sent since


def test_the_window_grows_again_when_the_repair_is_done():
    sender = make(200)
    sent(sender, 0)
    sender.acknowledged(100 * MS, TcpAck(0, ((1, 20),)))
    sent(sender, 100)
    sender.acknowledged(200 * MS, TcpAck(20, ()))  # the repeat has come; one of ten acknowledged
    assert window(sender) == 10
    sent(sender, 200)
    for number in range(21, 31):
        sender.acknowledged((200 + number) * MS, TcpAck(number, ()))
        sent(sender, 200 + number)
    assert window(sender) == 11


def test_a_repeated_segment_measures_no_round_trip():
    sender = make(2)
    sent(sender, 0)
    sender.acknowledged(50 * MS, TcpAck(1, ()))
    smoothed_ns = sender.round_trip.smoothed_ns
    assert smoothed_ns == 50 * MS
    assert not sender.expire(250 * MS)
    assert sent(sender, 250) == [1]
    sender.acknowledged(251 * MS, TcpAck(2, ()))  # of the first sending, or of the repeat?
    assert sender.round_trip.smoothed_ns == smoothed_ns


def test_the_time_out_runs_from_the_repeat_and_from_signs_of_life():
    sender = make(200)
    sent(sender, 0)
    sender.acknowledged(100 * MS, TcpAck(0, ((1, 4),)))
    sent(sender, 100)
    rto_ns = sender.rto_ns
    assert sender.deadline_ns == 100 * MS + rto_ns
    # Sent before the repeat: a path that still brings these may bring the repeat.
    sender.acknowledged(150 * MS, TcpAck(0, ((1, 20),)))
    rto_ns = sender.rto_ns
    assert sender.deadline_ns == 150 * MS + rto_ns
    assert sent(sender, 150) == list(range(20, 29))
    # Sent after the repeat: no reason to wait for it any longer.
    sender.acknowledged(250 * MS, TcpAck(0, ((1, 29),)))
    assert sender.deadline_ns == 150 * MS + rto_ns


def test_after_a_time_out_all_that_is_missing_goes_again_from_one_segment():
    sender = make(200)
    sent(sender, 0)
    deadline_ms = sender.deadline_ns // MS
    sender.expire(sender.deadline_ns)
    assert (window(sender), sender.congestion.threshold_bytes) == (1, 10 * SIZE)
    assert sent(sender, deadline_ms + 1) == [0]
    sender.acknowledged((deadline_ms + 2) * MS, TcpAck(1, ()))
    assert sent(sender, deadline_ms + 2) == [1, 2]
    sender.acknowledged((deadline_ms + 3) * MS, TcpAck(3, ()))
    assert sent(sender, deadline_ms + 3) == [3, 4, 5, 6]


def test_two_round_trips_after_the_last_segment_the_newest_goes_again_and_tells_what_is_lost():
    sender = make(10)
    sent(sender, 0)
    sender.acknowledged(100 * MS, TcpAck(3, ()))
    assert sender.deadline_ns == 300 * MS
    sender.expire(300 * MS)
    assert sent(sender, 300) == [9]
    sender.acknowledged(400 * MS, TcpAck(3, ((9, 10),)))
    assert sender.congestion.window_bytes == 3500  # half of the seven in flight
    assert sent(sender, 400) == [3, 4, 5]


def test_the_probe_is_a_new_segment_where_there_is_one():
    sender = make(200)
    sent(sender, 0)
    sender.acknowledged(100 * MS, TcpAck(5, ()))
    assert sent(sender, 100) == list(range(20, 30))
    sender.expire(300 * MS)
    assert sent(sender, 300) == [30]  # though the window is full


@pytest.mark.parametrize(("answered_ms", "left"), [(500, 2), (450, 20)])
def test_a_loss_that_the_probe_itself_repairs_shrinks_the_window(answered_ms, left):
    # The time-out of 100 ms + 4 * 50 ms comes before two round trips and what a lone segment's answer may take.
    sender = make(10)
    sent(sender, 0)
    sender.acknowledged(100 * MS, TcpAck(9, ()))
    assert sender.deadline_ns == 400 * MS
    sender.expire(400 * MS)
    assert sent(sender, 400) == [9]
    sender.acknowledged(answered_ms * MS, TcpAck(10, ()))  # after 50 ms it answers the first transmission
    assert window(sender) == left


def test_a_repeat_that_is_lost_goes_again_when_something_sent_later_arrives():
    sender = make(200)
    sent(sender, 0)
    sender.acknowledged(100 * MS, TcpAck(0, ((1, 20),)))
    assert sent(sender, 100) == [0, *range(20, 29)]
    sender.acknowledged(200 * MS, TcpAck(0, ((1, 29),)))
    assert window(sender) == 10  # one loss a window
    assert sent(sender, 200) == [0, *range(29, 38)]


def test_few_arrivals_above_a_hole_or_reordering_seen_earn_a_quarter_round_trip():
    sender = make(200)
    sent(sender, 0)
    sender.acknowledged(100 * MS, TcpAck(0, ((1, 2),)))
    assert sender.deadline_ns == 125 * MS
    sender.acknowledged(110 * MS, TcpAck(2, ()))  # it was only late
    sent(sender, 110)
    sender.acknowledged(115 * MS, TcpAck(2, ((3, 9),)))
    assert 2 not in sent(sender, 115)
    assert sender.deadline_ns == 140 * MS
    sender.expire(140 * MS)
    assert sent(sender, 140)[0] == 2


def test_the_third_time_out_too_many_ends_the_connection():
    sender = make(5, max_retries=2)
    sent(sender, 0)
    ends = []
    for _ in range(3):
        ends.append(sender.expire(sender.deadline_ns))
        sent(sender, 0)
    assert ends == [False, False, True]


@pytest.mark.parametrize("num_acked", [1, 5, 20])
def test_what_is_in_flight_never_exceeds_the_window(num_acked):
    sender = make(500)
    flying, acked, now_ms = len(sent(sender, 0)), 0, 0
    while acked < 500:
        now_ms += 10
        acked = min(500, acked + num_acked, acked + flying)
        sender.acknowledged(now_ms * MS, TcpAck(acked, ()))
        sent(sender, now_ms)
        flying = sender._next - acked
        assert flying <= window(sender)


def test_a_receiver_acknowledges_at_once_while_anything_is_missing():
    receiver = TcpReceiver(40 * MS)
    message = Message(number=0, payload_bytes=0, num_packets=9, sent_ns=0, missing=9)
    said = []
    for place in (0, 1, 2, 5, 3, 4, 6, 6):
        receiver.receive(place * MS, place, Segment(message, SIZE, is_last=False))
        receiver.in_order()
        said.append(receiver.acknowledge() if receiver.wants_ack else None)
    waits = None
    assert said == [
        waits,
        TcpAck(2, ()),
        waits,
        TcpAck(3, ((5, 6),)),
        TcpAck(4, ((5, 6),)),
        TcpAck(6, ()),  # the gap is closed
        waits,
        TcpAck(7, ()),  # twice
    ]
