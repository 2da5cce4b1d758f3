"""CoDel against RFC 8289's own pseudo-code and hand-computed drop times; a queue stays short under overload."""

from __future__ import annotations

from itertools import pairwise
from math import isqrt
from statistics import median

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.network_models.build import port_of
from testbed.network_models.channel import build_channel
from testbed.network_models.origin import Origin
from testbed.network_models.ports.packet import Packet
from testbed.network_models.queues.codel_law import CodelQueue
from testbed.network_models.transfer import Direction
from testbed.scenarios.profiles import LinkProfile
from tests.bufferbloat import ALONE_NS, RATE_BPS, S, share

MS = 1_000_000
TARGET, INTERVAL, MTU = 5 * MS, 100 * MS, 1500


class Rfc:
    """The RFC's pseudo-code (section 5), word for word but for whole nanoseconds."""

    def __init__(self):
        self.q, self.first_above_time, self.drop_next, self.count, self.lastcount = [], 0, 0, 0, 0
        self.dropping, self.dropped = False, []

    def control_law(self, t, count):
        return t + isqrt(INTERVAL**2 // count)

    def dodequeue(self, now):
        ok_to_drop = False
        if not self.q:
            self.first_above_time = 0
            return None, ok_to_drop
        packet = self.q.pop(0)
        sojourn_time = now - packet[1]
        if sojourn_time < TARGET or sum(size for _, _, size in self.q) <= MTU:
            self.first_above_time = 0
        elif self.first_above_time == 0:
            self.first_above_time = now + INTERVAL
        elif now >= self.first_above_time:
            ok_to_drop = True
        return packet, ok_to_drop

    def deque(self, now):
        p, ok_to_drop = self.dodequeue(now)
        if self.dropping:
            if not ok_to_drop:
                self.dropping = False
            while now >= self.drop_next and self.dropping:
                self.dropped.append((now, p[0]))
                p, ok_to_drop = self.dodequeue(now)
                if not ok_to_drop:
                    self.dropping = False
                else:
                    self.count += 1
                    self.drop_next = self.control_law(self.drop_next, self.count)
        elif ok_to_drop:
            self.dropped.append((now, p[0]))
            p, ok_to_drop = self.dodequeue(now)
            self.dropping = True
            delta = self.count - self.lastcount
            self.count = 1
            if delta > 1 and now - self.drop_next < 16 * INTERVAL:
                self.count = delta
            self.drop_next = self.control_law(now, self.count)
            self.lastcount = self.count
        return p


class Witness:
    """The end of a path that writes down what it is told."""

    def __init__(self, env):
        self.env, self.log, self.by_kind = env, [], {"left": [], "dropped": [], "lost": [], "arrived": []}

    def note(self, kind, packet):
        self.by_kind[kind].append((int(self.env.now), packet.number))

    def left(self, packet, left_ns):
        self.note("left", packet)

    def dropped(self, packet):
        self.note("dropped", packet)

    def lost(self, packet, gone_ns):
        self.note("lost", packet)

    def arrived(self, packet):
        self.note("arrived", packet)


def packet_of(number, end=None, size=MTU, ports=()):
    return Packet(size, end, ports, 0, number, 0, number, 0)


@settings(deadline=None, max_examples=60)
@given(
    rounds=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60)), min_size=1, max_size=60),
    sizes=st.lists(st.integers(40, MTU), min_size=7, max_size=7),
    offset=st.integers(1, 10**12),
)
def test_drops_are_those_of_the_rfcs_pseudo_code(rounds, sizes, offset):
    queue, rfc, now, number, found = (
        CodelQueue(target_ns=TARGET, interval_ns=INTERVAL, packet_bytes=MTU),
        Rfc(),
        1,
        0,
        [],
    )
    now += offset
    for num_in, num_out in rounds:
        for _ in range(num_in):
            size = sizes[number % 7]
            queue.push(packet_of(number, size=size), now)
            rfc.q.append((number, now, size))
            number += 1
        for _ in range(num_out):
            now += 7 * MS
            ours = queue.pop(now, lambda packet, now=now: found.append((now, packet.number)))
            theirs = rfc.deque(now)
            assert (ours and (ours.packet.number, ours.since_ns)) == (theirs and theirs[:2])
    assert found == rfc.dropped


def port_with(env, **changes):
    fields = {"rate_up": "12 Mbit/s", "rate_down": "1 Mbit/s", "propagation_delay": "10 ms"}  # 1,500 bytes a ms
    profile = LinkProfile(name="any", **{**fields, "queue": {"kind": "codel", "limit": "10 MB"}, **changes})
    return port_of(env, build_channel(profile, Origin(seed=1, direction=Direction.UP, entity=0)))


def run_port(num_packets, gap_ns, **changes):
    """Packets of the MTU at a steady pace."""
    env = simpy.Environment()
    port, witness = port_with(env, **changes), Witness(env)

    def source():
        for number in range(num_packets):
            port.offer(packet_of(number, witness, ports=(port,)))
            yield env.timeout(gap_ns)

    env.process(source())
    env.run()
    return witness.by_kind, port


def test_drop_times_of_a_standing_queue_computed_by_hand():
    # Twice what the link passes, from an empty queue: packet k comes at k/2 ms and its turn at k ms, so from packet 10
    # on, at 10 ms, none has waited less than the target.
    seen, _ = run_port(2000, MS // 2)
    dropped_ms = [time_ns / MS for time_ns, _ in seen["dropped"]]
    # So the first drop is at 110 ms, and the next ones at the first departures (whole ms) from 210 ms on, then from
    # 100 / sqrt(2), 100 / sqrt(3) ... after that.
    expected, due = [110], 110 + 100.0
    for count in range(2, 12):
        expected.append(-(-due // 1))
        due += 100 / count**0.5
    assert dropped_ms[:11] == expected


def test_a_queue_below_the_target_loses_nothing():
    seen, port = run_port(500, MS)
    assert not seen["dropped"]
    assert len(seen["arrived"]) == 500
    assert port.usage(0).busy_ns <= 500 * MS


def test_packets_arrive_in_order_whole_and_at_the_links_rate():
    seen, port = run_port(3000, MS // 2)
    numbers = [number for _, number in seen["arrived"]]
    assert numbers == sorted(numbers)
    assert len(numbers) + len(seen["dropped"]) == 3000
    assert not seen["lost"]
    times = [time_ns for time_ns, _ in seen["arrived"]]
    assert times[0] == 11 * MS
    assert {later - sooner for sooner, later in pairwise(times)} == {MS}
    usage = port.usage(times[-1])
    assert usage.busy_ns == len(numbers) * MS
    assert usage.backlog_bytes == 0


def test_its_byte_limit_holds_too():
    seen, port = run_port(300, 0, queue={"kind": "codel", "limit": "15 kB"})
    assert port.usage(0).peak_backlog_bytes == 15_000
    assert len(seen["dropped"]) >= 290
    assert len(seen["arrived"]) + len(seen["dropped"]) == 300


def test_a_link_with_it_is_computed_packet_by_packet():
    from testbed.core.errors import ScenarioError
    from testbed.network_models.build import resolution

    fields = {"rate_up": "1 Mbit/s", "rate_down": "1 Mbit/s", "propagation_delay": "1 ms"}
    codel = {"kind": "codel", "limit": "1 MB"}
    assert resolution(LinkProfile(name="any", queue=codel, **fields)) == "packets"
    with pytest.raises(ScenarioError, match="only when that is about to leave"):
        resolution(LinkProfile(name="any", queue=codel, resolution="messages", **fields))


def test_small_messages_behind_a_bulk_transfer_wait_for_seconds_or_for_milliseconds():
    bloated, short = (share(queue, duration_ns=6 * S) for queue in ("64 MB", {"kind": "codel", "limit": "64 MB"}))
    capacity_bytes = 6 * RATE_BPS // 8
    assert min(bloated.delays_ns + short.delays_ns) >= ALONE_NS
    assert median(bloated.delays_ns) > S
    assert bloated.dropped_packets == 0
    assert median(short.delays_ns) < ALONE_NS + TARGET
    assert short.dropped_packets > 5
    assert min(bloated.bulk_bytes, short.bulk_bytes) > 0.9 * capacity_bytes
    assert len(short.delays_ns) > 0.98 * short.num_small
