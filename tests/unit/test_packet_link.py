"""Packets over two hops, on cases worked out by hand: 8 Mbit/s first, so that a byte takes a microsecond."""

from __future__ import annotations

from testbed.network_models.exercise import Sent, exercise
from testbed.network_models.transfer import Fate
from testbed.scenarios.profiles import LinkProfile
from tests.paths import hop_port, link_over

MS = 1_000_000


def run(message_bytes, transport, *, second):
    """One message at 0 over a hop of 10 ms and then another."""
    profile = LinkProfile(
        name="by-hand", rate_up="8 Mbit/s", rate_down="8 Mbit/s", propagation_delay=0, transport=transport
    )

    def make(env):
        first = {"rate_up": "8 Mbit/s", "propagation_delay": "10 ms"}
        return link_over(env, profile, [hop_port(env, mtu="1500 B", **hop) for hop in (first, second)])

    (transfer,), account = exercise(make, [Sent(0, message_bytes)])
    return transfer, account


def test_a_message_is_stored_and_forwarded_packet_by_packet():
    # Both leave the first hop by 3 ms. The second hop takes 3 ms for each: from 11.5 ms to 17.5 ms, the second packet
    # waits there from 13 ms to 14.5 ms.
    transfer, _ = run(2 * 1460, "datagram", second={"rate_up": "4 Mbit/s", "propagation_delay": "5 ms"})
    assert transfer.ended_ns == (3 + 10 + 1.5 + 3 + 5) * MS
    assert (transfer.queue_ns, transfer.serialise_ns) == (1.5 * MS, (3 + 3) * MS)
    assert (transfer.propagate_ns, transfer.retransmit_ns) == (15 * MS, 0)


def test_a_packet_refused_further_on_is_repeated_until_there_is_room():
    # The second hop holds one packet, for 150 ms: from 11.5 ms to 161.5 ms. The other one is refused there at 13 ms,
    # goes again 100 ms after it left at 3 ms, is refused at 114.5 ms, goes again at 204.5 ms and is there at 216 ms.
    arq = {"kind": "selective-repeat", "timeout": "100 ms"}
    transfer, account = run(2 * 1460, arq, second={"rate_up": "80 kbit/s", "queue": "1500 B"})
    assert transfer.ended_ns == (216 + 150) * MS
    assert (transfer.queue_ns, transfer.serialise_ns) == (0, (3 + 150) * MS)
    assert transfer.retransmit_ns == (206 - 3) * MS
    assert (transfer.num_retransmissions, account.lost_packets, account.dropped_packets) == (2, 2, 0)


def test_a_loss_that_is_certain_after_the_timeout_is_repeated_at_once():
    # As above, with a time-out of 5 ms: the second packet is refused at 13 ms, 5 ms after 8 ms. It goes again at 13 ms,
    # 24.5 ms, 36 ms and so on, every 11.5 ms, until it finds room at 162.5 ms.
    arq = {"kind": "selective-repeat", "timeout": "5 ms", "max_retransmissions": 20}
    transfer, account = run(2 * 1460, arq, second={"rate_up": "80 kbit/s", "queue": "1500 B"})
    assert transfer.num_retransmissions == account.lost_packets == 13
    assert transfer.ended_ns == (13 + 13 * 11.5 + 150) * MS


def test_a_datagram_lost_further_on_ends_where_it_was_lost():
    transfer, _ = run(2 * 1460, "datagram", second={"rate_up": "80 kbit/s", "queue": "1500 B"})
    assert transfer.fate is Fate.LOST
    assert transfer.ended_ns == (11.5 + 150) * MS  # the first packet's arrival, the last that is known of the message


def test_stop_and_wait_waits_a_round_trip_over_all_hops():
    # 1.5 ms and 10 ms, 3 ms and 5 ms, and 2 ms back; then the second packet's 3 ms, 10 ms, 6 ms and 5 ms.
    second = {"rate_up": "4 Mbit/s", "propagation_delay": "5 ms"}
    transfer, account = run(2 * 1460, {"kind": "stop-and-wait"}, second=second)
    assert transfer.window_ns == (10 + 3 + 5 + 2) * MS
    assert transfer.ended_ns == (1.5 + 20 + 1.5 + 10 + 3 + 5) * MS
    assert account.ack_bytes == 2 * 40
