"""TCP on cases worked out by hand: a full packet takes 150 us, a bare header 4 us, one way 10 ms."""

from __future__ import annotations

import pytest
import simpy

from testbed.network_models.transfer import Fate
from tests.connections import HEADER, MS, SEGMENT, US, Chosen, S, connect, numbers, run

KIB = 1024
FULL, BARE, WAY = 150 * US, 4 * US, 10 * MS
HANDSHAKE = 2 * (BARE + WAY)


def tcp(**config):
    return {"kind": "tcp", "delayed_ack": "0 s", "congestion": "reno", **config}


def slow_start_ns(payload_bytes, acked_together, first_segments=10, header=HEADER, ack=BARE):
    """From the first bit to the last arrival: rounds of doubling windows until the pipe never runs dry.

    A round's first acknowledgement comes when as many segments as share one have arrived, and a way back later.
    """
    segment = 1500 - header
    num_full, rest = divmod(payload_bytes, segment)
    round_ns = acked_together * FULL + 2 * WAY + ack
    sent, window, start_ns = 0, first_segments, 0
    while sent + window < num_full + bool(rest) and window * FULL < round_ns:
        sent, window, start_ns = sent + window, 2 * window, start_ns + round_ns
    left_ns = (num_full - sent) * FULL + ((rest + header) * 100 if rest else 0)
    return start_ns + left_ns + WAY


@pytest.mark.parametrize("size", [1, KIB, 14_600, 14_601, 16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB, 4096 * KIB])
@pytest.mark.parametrize(("delayed_ack", "together"), [("0 s", 1), ("150 ms", 2)])
def test_a_first_message_takes_a_handshake_and_the_rounds_of_slow_start(size, delayed_ack, together):
    (transfer,), account = run(tcp(delayed_ack=delayed_ack), (5 * MS, size))
    assert transfer.ended_ns - transfer.sent_ns == HANDSHAKE + slow_start_ns(size, together)
    assert transfer.connect_ns == HANDSHAKE
    assert transfer.wire_bytes == account.wire_bytes == size + (transfer.num_packets + 1) * HEADER
    assert (account.retransmissions, account.duplicate_packets) == (0, 0)


def test_the_parts_of_a_first_message():
    (transfer,), _ = run(tcp(), (0, 12 * SEGMENT))
    # The last of twelve goes with the eleventh when the first acknowledgement is back, and waits for the eleventh.
    expected = {
        "connect_ns": HANDSHAKE,
        "window_ns": FULL + 2 * WAY + BARE,
        "queue_ns": FULL,
        "serialise_ns": FULL,
        "propagate_ns": WAY,
        "jitter_ns": 0,
        "retransmit_ns": 0,
    }
    assert {name: getattr(transfer, name) for name in expected} == expected
    assert sum(expected.values()) == transfer.ended_ns


def test_a_connection_carries_both_directions_after_one_handshake():
    env = simpy.Environment()
    access = connect(env, tcp(delayed_ack="40 ms"))
    first = access.up.send(100)
    env.run(until=first)
    answer = access.down.send(100)
    env.run(until=answer)
    assert answer.value.ended_ns - answer.value.sent_ns == 140 * 100 + WAY
    assert (answer.value.connect_ns, first.value.connect_ns) == (0, HANDSHAKE)


def test_whoever_speaks_first_opens_and_two_may_at_once():
    env = simpy.Environment()
    access = connect(env, tcp())
    ends = [access.down.send(1000), access.up.send(3000)]
    env.run()
    assert [end.value.connect_ns for end in ends] == [HANDSHAKE, HANDSHAKE]
    assert all(end.value.delivered for end in ends)


def test_a_lost_syn_is_sent_again_after_a_second_and_then_two():
    (transfer,), _ = run(tcp(), (0, 100), up=Chosen(numbers(0, 1)))
    assert transfer.connect_ns == 3 * S + HANDSHAKE
    assert transfer.wire_bytes == 140 + 3 * HEADER


def test_a_repeated_syn_measures_no_round_trip():
    up = Chosen(numbers(0, 2))  # the first SYN, and then the only segment
    run(tcp(), (0, SEGMENT), up=up)
    assert up.left_ns[3] == S + HANDSHAKE + S + FULL  # still the initial time-out


def test_acknowledgements_are_packets_of_their_own_on_the_way_back():
    # Twelve segments: a SYN-ACK and an acknowledgement each, or one for every two.
    for delayed_ack, num_acks in (("0 s", 12), ("150 ms", 6)):
        down = Chosen()
        _, account = run(tcp(delayed_ack=delayed_ack), (0, 12 * SEGMENT), down=down)
        assert account.ack_bytes == (1 + num_acks) * HEADER
        assert len(down.left_ns) == 1 + num_acks


def test_a_single_segment_is_acknowledged_after_the_delay_or_with_data_that_goes_back():
    down = Chosen()
    run(tcp(delayed_ack="30 ms"), (0, SEGMENT), down=down)
    assert down.left_ns[1] == HANDSHAKE + FULL + WAY + 30 * MS + BARE
    env, down = simpy.Environment(), Chosen()
    access = connect(env, tcp(delayed_ack="30 ms"), down=down)
    env.run(until=access.up.send(SEGMENT))
    env.run(until=access.down.send(60))
    env.run()
    assert down.left_ns[1:] == [HANDSHAKE + FULL + WAY + 100 * 100]
    assert access.up.snapshot().ack_bytes == HEADER  # the SYN-ACK alone: the answer brought the acknowledgement


def test_the_window_is_the_initial_one_again_after_a_pause_longer_than_the_time_out():
    size = 300 * SEGMENT
    for pause_ns, rounds_again in ((150 * MS, False), (S, True)):
        (_, second), _ = run(tcp(), (0, size), (120 * MS + pause_ns, size))
        expected_ns = slow_start_ns(size, 1) if rounds_again else size // SEGMENT * FULL + WAY
        assert second.ended_ns - second.sent_ns == expected_ns
    (_, second), _ = run(tcp(idle_restart=False), (0, size), (2 * S, size))
    assert second.ended_ns - second.sent_ns == 300 * FULL + WAY


def test_a_window_that_is_not_used_does_not_grow():
    messages = [(number * 100 * MS, 5 * SEGMENT) for number in range(20)]
    transfers, _ = run(tcp(), *messages, (2000 * MS, 20 * SEGMENT))
    # Still ten: the twentieth goes with the fifth acknowledgement, each of which lets two go.
    assert transfers[-1].window_ns == 5 * FULL + 2 * WAY + BARE


def test_a_single_loss_costs_a_round_trip_and_no_time_out():
    size = 200 * SEGMENT
    (whole,), _ = run(tcp(), (0, size))
    for lost in (120, 150, 190):
        (transfer,), account = run(tcp(), (0, size), up=Chosen(numbers(lost)))
        assert transfer.num_retransmissions == account.lost_packets == 1
        assert account.duplicate_packets == 0
        assert 0 <= transfer.ended_ns - whole.ended_ns < 1.5 * (2 * WAY + FULL + BARE)


def test_the_repeat_goes_when_three_segments_above_are_acknowledged():
    up = Chosen(numbers(3))
    run(tcp(), (0, 10 * SEGMENT), up=up)
    # The third of ten is lost; the sixth arrives after 6 packets and a way, its acknowledgement tells of three.
    told_ns = HANDSHAKE + 6 * FULL + WAY + (HEADER + 4 + 8) * 100 + WAY
    assert up.left_ns[11] == told_ns + FULL


def test_a_last_segment_lost_alone_waits_for_the_time_out():
    (transfer,), account = run(tcp(), (0, 10 * SEGMENT), up=Chosen(numbers(10)))
    last_ack_ns = HANDSHAKE + 9 * FULL + 2 * WAY + BARE
    assert transfer.ended_ns == last_ack_ns + 200 * MS + FULL + WAY
    assert transfer.retransmit_ns == transfer.ended_ns - (HANDSHAKE + 10 * FULL + WAY) + 9 * FULL
    assert account.retransmissions == 1


def test_time_outs_double_until_the_connection_is_given_up_and_the_next_message_opens_another():
    is_dead = Chosen(lambda number, time_ns: 1 * S < time_ns < 500 * S)
    (_, second, third), account = run(tcp(max_retries=9), (0, 100), (2 * S, 100), (600 * S, 100), up=is_dead)
    waits = [late - early for early, late in zip(is_dead.left_ns[2:], is_dead.left_ns[3:], strict=False)]
    # A probe at the first time-out's end, then the time-outs themselves.
    assert waits[:10] == [200 * MS] + [min(200 * MS * 2**k, 60 * S) for k in range(9)]
    assert (second.fate, second.retransmit_ns) == (Fate.TIMEOUT, 200 * MS * 2**9 + 60 * S)
    assert second.ended_ns == second.sent_ns + second.retransmit_ns
    assert third.delivered
    assert third.connect_ns == HANDSHAKE
    assert (account.delivered, account.lost, account.lost_payload_bytes) == (2, 1, 100)


def test_patience_ends_a_message_and_the_connection():
    is_dead = Chosen(lambda number, time_ns: 1 * S < time_ns < 5 * S)
    (_, second, third), _ = run(tcp(patience="700 ms"), (0, 100), (2 * S, 100), (6 * S, 100), up=is_dead)
    assert (second.fate, second.ended_ns) == (Fate.TIMEOUT, 2 * S + 700 * MS)
    assert (third.fate, third.connect_ns) == (Fate.DELIVERED, HANDSHAKE)


def test_packets_of_an_earlier_connection_are_ignored():
    # The second message is given up 35 ms after its start, with acknowledgements of its second round under way.
    size = 40 * SEGMENT
    (_, second, third), _ = run(tcp(patience="35 ms"), (0, 100), (S, size), (S + 36 * MS, 100))
    assert (second.fate, second.ended_ns) == (Fate.TIMEOUT, S + 35 * MS)
    assert third.ended_ns == S + 36 * MS + HANDSHAKE + 140 * 100 + WAY


def test_the_time_out_follows_the_round_trip():
    # RFC 6298 by hand: the handshake takes 20.008 ms, each segment's acknowledgement 20.154 ms.
    up = Chosen(numbers(2))
    (_, transfer), _ = run(tcp(min_rto="1 ns"), (0, SEGMENT), (S, SEGMENT), up=up)
    smoothed, variation, measured = 20_008_000, 10_004_000, FULL + 2 * WAY + BARE
    variation = (3 * variation + (measured - smoothed)) // 4
    smoothed = (7 * smoothed + measured) // 8
    assert up.left_ns[3] == S + smoothed + 4 * variation + FULL
    assert transfer.retransmit_ns == smoothed + 4 * variation


def test_a_message_waits_for_the_bytes_before_it():
    (first, second), _ = run(tcp(), (0, 4 * SEGMENT), (0, 4 * SEGMENT), up=Chosen(numbers(2)))
    # The second segment is lost; the fifth arrives, its acknowledgement tells, the repeat comes.
    told_ns = HANDSHAKE + 5 * FULL + WAY + (HEADER + 4 + 8) * 100 + WAY
    assert first.ended_ns == second.ended_ns == told_ns + FULL + WAY
    assert second.retransmit_ns == second.ended_ns - (HANDSHAKE + 8 * FULL + WAY)


def test_a_receive_window_holds_the_sender_back():
    (transfer,), _ = run(tcp(receive_window=f"{2 * SEGMENT} B"), (0, 10 * SEGMENT))
    assert transfer.ended_ns == HANDSHAKE + 4 * (FULL + 2 * WAY + BARE) + 2 * FULL + WAY


def test_nagle_holds_a_small_segment_until_all_is_acknowledged():
    messages = (0, SEGMENT), (0, 10)
    assert run(tcp(), *messages)[0][1].ended_ns == HANDSHAKE + FULL + 50 * 100 + WAY
    nagle = run(tcp(nagle=True), *messages)[0][1]
    assert nagle.ended_ns == HANDSHAKE + FULL + 2 * WAY + BARE + 50 * 100 + WAY


def test_an_empty_message_travels_as_a_bare_header():
    (transfer,), _ = run(tcp(), (0, 0))
    assert transfer.ended_ns == HANDSHAKE + BARE + WAY


def test_a_full_queue_drops_and_the_window_answers():
    (transfer,), account = run(tcp(), (0, 400 * SEGMENT), queue="20 kB")
    assert account.dropped_packets > 0
    assert transfer.delivered
    assert account.retransmissions - account.duplicate_packets == account.dropped_packets
    assert account.peak_backlog_bytes <= 20_000


def test_every_number_of_a_transfer_is_an_int():
    (transfer,), _ = run(tcp(congestion="cubic"), (0, 100 * SEGMENT), loss=0.05)
    times = [value for name, value in transfer._asdict().items() if name.endswith("_ns")]
    assert all(type(time_ns) is int for time_ns in times)
