"""QUIC on cases worked out by hand: a full packet takes 150 us, one way 10 ms."""

from __future__ import annotations

from itertools import pairwise

import pytest
import simpy

from testbed.core.errors import ScenarioError
from testbed.network_models.build import resolution
from testbed.network_models.transfer import Fate
from testbed.scenarios.problems import validate
from testbed.scenarios.profiles import LinkProfile
from tests.connections import FIELDS, MS, Chosen, S, connect, numbers, run
from tests.unit.test_tcp import FULL, KIB, WAY, slow_start_ns

HEADER, SEGMENT = 62, 1438
INITIAL = 1228 * 100  # ns
ACK = 63 * 100


def quic(**config):
    return {"kind": "quic", "congestion": "reno", **config}


@pytest.mark.parametrize("size", [1, KIB, 14_380, 14_381, 64 * KIB, 256 * KIB, 4096 * KIB])
@pytest.mark.parametrize("zero_rtt", [True, False])
def test_a_first_message_takes_the_rounds_of_slow_start_and_a_handshake_only_without_keys(size, zero_rtt):
    (transfer,), account = run(quic(zero_rtt=zero_rtt, ack_delay="150 ms"), (0, size))
    opened_ns = INITIAL if zero_rtt else 2 * (INITIAL + WAY)
    assert transfer.ended_ns == opened_ns + slow_start_ns(size, 2, header=HEADER, ack=ACK)
    assert transfer.connect_ns == (0 if zero_rtt else opened_ns)
    assert transfer.wire_bytes == size + transfer.num_packets * HEADER + 1228
    assert account.retransmissions == 0


def test_a_lost_packet_holds_up_its_own_message_alone():
    # Packet 0 opens the connection, packet 2 carries the second segment of the first message.
    (first, second), _ = run(quic(), (0, 4 * SEGMENT), (0, 4 * SEGMENT), up=Chosen(numbers(2)))
    assert second.ended_ns == INITIAL + 8 * FULL + WAY
    assert second.retransmit_ns == 0
    assert first.ended_ns > second.ended_ns + 2 * WAY - 8 * FULL
    assert (first.num_retransmissions, second.num_retransmissions) == (1, 0)


def test_a_packet_is_lost_when_one_three_later_is_acknowledged():
    up = Chosen(numbers(3))
    run(quic(ack_delay="0 s"), (0, 10 * SEGMENT), up=up)
    # The third data packet is lost; that of the sixth is three later.
    told_ns = INITIAL + 6 * FULL + WAY + ACK + 4 * 100 + WAY
    assert up.left_ns[11] == told_ns + FULL


def test_a_packet_near_the_end_is_lost_after_nine_eighths_of_a_round_trip():
    up = Chosen(numbers(9))
    (transfer,), account = run(quic(ack_delay="0 s"), (0, 10 * SEGMENT), up=up)
    assert account.retransmissions == 1
    # The tenth arrives and is acknowledged; the ninth is sent again when 9/8 of the longest round trip have passed.
    assert transfer.ended_ns < INITIAL + 2 * (2 * WAY + 10 * FULL) + WAY


def test_a_repeat_that_is_lost_is_found_without_a_time_out():
    lost_twice = Chosen(numbers(3, 11))
    (transfer,), _ = run(quic(ack_delay="0 s"), (0, 40 * SEGMENT), up=lost_twice)
    assert transfer.num_retransmissions == 2
    assert transfer.ended_ns < 200 * MS


def test_a_lost_tail_is_probed():
    # Nothing comes back for the last packet: the probe goes after the smoothed round trip, four times its variation and
    # the other end's 25 ms.
    (transfer,), account = run(quic(zero_rtt=False), (0, SEGMENT), up=Chosen(numbers(1)))
    round_trip_ns = 2 * (INITIAL + WAY)
    probe_ns = round_trip_ns + 4 * (round_trip_ns // 2) + 25 * MS
    assert transfer.ended_ns == round_trip_ns + probe_ns + FULL + WAY
    assert account.retransmissions == 1


def test_probes_double_and_a_connection_without_an_answer_ends():
    is_dead = Chosen(lambda number, time_ns: 1 * S < time_ns < 50 * S)
    (_, second, third), account = run(quic(idle_timeout="5 s"), (0, 100), (2 * S, 100), (60 * S, 100), up=is_dead)
    sent_ns = [time_ns for time_ns in is_dead.left_ns if 2 * S <= time_ns < 50 * S]
    gaps = [late - early for early, late in pairwise(sent_ns)]
    assert gaps == [gaps[0] * 2**k for k in range(len(gaps))]
    assert (second.fate, second.ended_ns) == (Fate.TIMEOUT, 7 * S)
    assert third.delivered
    assert account.lost == 1


def test_patience_ends_one_message_and_not_the_connection():
    up = Chosen(lambda number, time_ns: 1 * S < time_ns < 3 * S)
    (_, second, third), _ = run(quic(patience="500 ms", zero_rtt=False), (0, 100), (2 * S, 100), (4 * S, 100), up=up)
    assert (second.fate, second.ended_ns) == (Fate.TIMEOUT, 2500 * MS)
    assert (third.fate, third.connect_ns) == (Fate.DELIVERED, 0)


def test_packet_numbers_are_never_used_twice():
    up = Chosen(lambda number, time_ns: number % 5 == 3)
    _, account = run(quic(), (0, 60 * SEGMENT), up=up)
    assert len(up.left_ns) == 1 + account.packets + account.retransmissions  # each a key of its own


def test_both_directions_share_a_connection():
    env = simpy.Environment()
    access = connect(env, quic())
    env.run(until=access.up.send(100))
    answer = access.down.send(100)
    env.run(until=answer)
    assert answer.value.ended_ns - answer.value.sent_ns <= INITIAL + 162 * 100 + WAY
    env.run()
    assert access.up.snapshot().ack_bytes == 1228  # the answer brought the acknowledgement


def test_a_packet_must_hold_the_handshake():
    with pytest.raises(ScenarioError, match="too small for transport quic") as caught:
        validate(LinkProfile, {**FIELDS, "mtu": "1200 B", "transport": "quic"})
    assert caught.value.path == "mtu"


@pytest.mark.parametrize("kind", ["tcp", "quic"])
def test_messages_are_refused_with_the_reason(kind):
    assert resolution(LinkProfile(**FIELDS, transport=kind)) == "packets"
    with pytest.raises(ScenarioError, match=f"transport {kind} reacts to each acknowledgement"):
        resolution(LinkProfile(**FIELDS, transport=kind, resolution="messages"))
