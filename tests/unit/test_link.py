"""The basic link on cases worked out by hand: 8 Mbit/s, so that a byte takes a microsecond."""

from __future__ import annotations

import numpy as np
import pytest
import simpy

from testbed.core.errors import ScenarioError
from testbed.core.quantiles import QuantileTable
from testbed.core.rng import Stream
from testbed.network_models.exercise import Sent, exercise
from testbed.network_models.framing import Framing
from testbed.network_models.jitter import jitter_table
from testbed.network_models.origin import Origin
from testbed.network_models.queues.transmitter import Transmitter
from testbed.network_models.rates.constant import ConstantRate
from testbed.network_models.transfer import Direction, Fate, Transfer
from testbed.scenarios.problems import validate
from testbed.scenarios.profiles import JitterConfig, LinkProfile
from tests.links import arq, link_of

US, MS = 1_000, 1_000_000
FIELDS = {
    "name": "by-hand",
    "rate_up": "8 Mbit/s",
    "rate_down": "80 Mbit/s",
    "propagation_delay": "10 ms",
    "transport": arq(timeout="100 ms"),
}
RATE = ConstantRate(ConstantRate.Config(rate="8 Mbit/s"), Origin(seed=1, direction=Direction.UP, entity=0))


def profile(**changes):
    return LinkProfile(**{**FIELDS, **changes})


def make(env, *, direction=Direction.UP, entity=0, seed=1, **changes):
    return link_of(env, profile(**changes), direction=direction, entity=entity, seed=seed)


def run(*messages, **changes):
    return exercise(lambda env: make(env, **changes), [Sent(*message) for message in messages])


@pytest.mark.parametrize(
    ("payload_bytes", "num_packets", "last_bytes"),
    [(0, 1, 40), (1, 1, 41), (1460, 1, 1500), (1461, 2, 41), (2920, 2, 1500), (16384, 12, 364)],
)
def test_messages_are_cut_at_the_mtu(payload_bytes, num_packets, last_bytes):
    framing = Framing(mtu_bytes=1500, header_bytes=40)
    assert framing.num_packets(payload_bytes) == num_packets
    assert framing.last_packet_bytes(payload_bytes) == last_bytes
    assert framing.wire_bytes(payload_bytes) == (num_packets - 1) * 1500 + last_bytes


def test_a_message_alone():
    (transfer,), account = run((5 * MS, 3000))
    assert transfer == Transfer(
        sent_ns=5 * MS,
        ended_ns=5 * MS + 3120 * US + 10 * MS,
        payload_bytes=3000,
        wire_bytes=3120,  # 1500 + 1500 + 120
        num_packets=3,
        num_retransmissions=0,
        fate=Fate.DELIVERED,
        queue_ns=0,
        serialise_ns=3120 * US,
        propagate_ns=10 * MS,
        jitter_ns=0,
        retransmit_ns=0,
    )
    assert (account.messages, account.delivered, account.packets, account.wire_bytes) == (1, 1, 3, 3120)
    assert account.busy_ns == 3120 * US
    assert account.peak_backlog_bytes == 3120


def test_the_two_directions_have_their_own_rates():
    (transfer,), _ = run((0, 3000), direction=Direction.DOWN)
    assert transfer.serialise_ns == 312 * US


def test_each_packet_is_rounded_up_to_whole_nanoseconds():
    (transfer,), _ = run((0, 2920), rate_up="7 Mbit/s")
    assert transfer.serialise_ns == 2 * 1_714_286  # 1500 B at 7 Mbit/s is 1,714,285.7 ns


def test_messages_queue_in_order_of_sending():
    transfers, _ = run((0, 1460), (0, 960), (1600 * US, 460), (9 * MS, 460))
    assert [item.queue_ns for item in transfers] == [0, 1500 * US, 900 * US, 0]


def test_a_packet_holds_its_room_until_its_last_bit_left():
    queue = Transmitter(RATE, limit_bytes=3000, packet_bytes=1500)
    assert queue.offer(0, 2, 0).num_full == 2
    assert queue.offer(1500 * US - 1, 1, 0).num_full == 0
    burst = queue.offer(1500 * US, 1, 0)
    assert (burst.num_full, burst.start_ns, burst.end_ns) == (1, 3000 * US, 4500 * US)
    assert queue.backlog_bytes(1500 * US) == 3000
    assert queue.busy_ns(2000 * US) == 2000 * US
    assert queue.backlog_bytes(4500 * US) == 0


def test_a_full_queue_drops_packets_and_a_smaller_one_may_still_fit():
    queue = Transmitter(RATE, limit_bytes=4000, packet_bytes=1500)
    burst = queue.offer(0, 5, 700)
    assert (burst.num_full, burst.took_last, burst.wire_bytes) == (2, True, 3700)
    burst = queue.offer(0, 0, 301)
    assert (burst.took_last, burst.start_ns, burst.end_ns) == (False, 0, 0)


def test_dropped_packets_go_again_after_the_timeout():
    # Two of four packets fit. The first round's last bit leaves at 3 ms, the others go at 103 ms.
    (transfer,), account = run((0, 4 * 1460), queue="3000 B")
    assert transfer.delivered
    assert (transfer.serialise_ns, transfer.retransmit_ns) == (3 * MS, 100 * MS + 3 * MS)
    assert transfer.ended_ns == 116 * MS
    assert (transfer.num_packets, transfer.num_retransmissions, transfer.wire_bytes) == (4, 2, 6000)
    assert (account.dropped_packets, account.retransmissions, account.lost_packets) == (2, 2, 0)


def test_a_message_the_queue_took_nothing_of_tries_again_after_the_timeout():
    transfers, account = run((0, 1460), (MS, 1460), queue="1500 B")
    assert transfers[1].queue_ns == transfers[1].serialise_ns == 0
    assert transfers[1].retransmit_ns == 100 * MS + 1500 * US
    assert transfers[1].ended_ns == 112_500 * US
    assert account.dropped_packets == 1


def test_the_sender_gives_up_one_timeout_after_its_last_round():
    # One packet fits a round: 3 of 4 are through after two repeats.
    (transfer,), account = run((0, 4 * 1460), queue="1500 B", transport=arq(timeout="100 ms", max_retransmissions=2))
    assert not transfer.delivered
    assert transfer.propagate_ns == transfer.jitter_ns == 0
    assert transfer.ended_ns == 3 * (1500 * US + 100 * MS)
    assert (transfer.num_retransmissions, transfer.wire_bytes) == (3 + 2, 4500)
    assert (account.lost, account.delivered, account.lost_payload_bytes) == (1, 0, 4 * 1460)


@pytest.mark.parametrize(("again", "peak_bytes"), [(5, 15_000), (6, 15_000), (7, 16_500)])
def test_a_peak_counts_what_has_left_of_a_burst_as_left(again, peak_bytes):
    # Ten packets of 1.5 ms; of these four are still there after 9 ms.
    _, account = run((0, 10 * 1460), (9 * MS, again * 1460))
    assert account.peak_backlog_bytes == peak_bytes


def test_lost_packets_follow_their_keys():
    losses = Stream.named(1, "link.up.loss")
    is_lost = [[losses.u64(5, attempt << 40 | packet) / 2**64 < 0.5 for packet in range(40)] for attempt in range(3)]
    transfers, account = run(*((index * 1000 * MS, 1000) for index in range(40)), entity=5, loss=0.5)
    first_ok = [item.num_retransmissions == 0 for item in transfers]
    assert first_ok == [not lost for lost in is_lost[0]]
    second_ok = [item.num_retransmissions == 1 for item in transfers if item.num_retransmissions]
    assert second_ok == [not again for lost, again in zip(is_lost[0], is_lost[1], strict=True) if lost]
    assert account.lost_packets == account.retransmissions == sum(item.num_retransmissions for item in transfers)


def test_jitter_is_keyed_by_the_message():
    config = JitterConfig(law="gamma", mean="4 ms", std="2 ms")
    draws, table = Stream.named(1, "link.up.jitter"), jitter_table(config)
    transfers, _ = run(*((index * MS, 4000) for index in range(20)), entity=2, jitter=config)
    assert [item.jitter_ns for item in transfers] == [table.value(draws.u64(2, number) >> 32) for number in range(20)]
    assert all(
        item.ended_ns == item.sent_ns + item.queue_ns + 4120 * US + 10 * MS + item.jitter_ns for item in transfers
    )


def test_jitter_is_never_negative():
    table = jitter_table(JitterConfig(law="normal", mean="1 ms", std="5 ms"))
    assert isinstance(table, QuantileTable)
    assert np.min(table.cells) == 0 < np.max(table.cells)


def test_a_message_may_overtake_another_by_jitter():
    transfers, _ = run(
        *((index * MS, 100) for index in range(50)), jitter=JitterConfig(law="uniform", mean="20 ms", std="5 ms")
    )
    ends = [item.ended_ns for item in transfers]
    assert ends != sorted(ends)


def test_a_repeat_due_at_an_instant_enters_before_a_message_sent_then():
    # Of three packets two fit at first; the third goes at 3 ms + 100 ms, when the other message is sent. The event that
    # sends it is the older one.
    env = simpy.Environment()
    link, sent = make(env, queue="3000 B"), []
    env.timeout(103 * MS).callbacks.append(lambda _: sent.append(link.send(960)))
    first = link.send(3 * 1460)
    env.run()
    assert first.value.retransmit_ns == 100 * MS + 1500 * US
    assert sent[0].value.queue_ns == 1500 * US


def test_a_message_without_loss_costs_one_event():
    env = simpy.Environment()
    link = make(env, jitter=JitterConfig(law="exponential", mean="1 ms"))
    for _ in range(7):
        link.send(100_000)
    num_events = 0
    while env.peek() != simpy.core.Infinity:
        env.step()
        num_events += 1
    assert num_events == 7


def test_the_snapshot_shows_a_message_half_way():
    env = simpy.Environment()
    link = make(env)
    link.send(4 * 1460)
    env.run(until=3200 * US)
    halfway = link.snapshot()
    assert (halfway.busy_ns, halfway.backlog_bytes, halfway.peak_backlog_bytes) == (3200 * US, 3000, 6000)
    assert (halfway.messages, halfway.delivered, halfway.delivered_payload_bytes) == (1, 0, 0)
    env.run()
    assert (link.snapshot().delivered, link.snapshot().delivered_payload_bytes) == (1, 4 * 1460)


def test_a_negative_size_is_refused():
    with pytest.raises(AssertionError, match="-1 bytes"):
        make(simpy.Environment()).send(-1)


def test_the_profile_names_its_pieces():
    with pytest.raises(ScenarioError, match=r"unknown transport.*did you mean 'selective-repeat'"):
        validate(LinkProfile, {**FIELDS, "transport": "selective-repeats"})
