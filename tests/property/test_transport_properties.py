"""Transports at resolution `messages` against plain packet-by-packet models that share only the keyed draws."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.core.rng import Stream
from testbed.network_models.exercise import Sent, exercise
from testbed.network_models.jitter import jitter_table
from testbed.network_models.transfer import Fate
from testbed.scenarios.profiles import LinkProfile
from tests.links import link_of

SEED, ENTITY = 5, 2
FOREVER = 10**20


class Plain:
    """What all models share: sizes, service times, draws, a queue with a byte limit."""

    def __init__(self, profile):
        self.profile = profile
        self.losses = Stream.named(SEED, "link.up.loss")
        self.jitters = Stream.named(SEED, "link.up.jitter")
        self.leaving, self.free_ns, self.packets, self.lost, self.dropped = [], 0, 0, 0, 0

    def sizes(self, payload_bytes):
        room = self.profile.mtu - self.profile.header
        left = [min(room, payload_bytes - start) for start in range(0, payload_bytes, room)] or [0]
        return [part + self.profile.header for part in left]

    def extra_ns(self, message):
        table = jitter_table(self.profile.jitter) if self.profile.jitter else None
        return table.value(self.jitters.u64(ENTITY, message) >> 32) if table else 0

    def try_packet(self, now_ns, size_bytes):
        """The time its last bit leaves, or None when the queue is full."""
        if sum(size for end_ns, size in self.leaving if end_ns > now_ns) + size_bytes > self.profile.queue.limit:
            self.dropped += 1
            return None
        service_ns = ceil(Fraction(size_bytes * 8 * 10**9, self.profile.rate_up.rate))
        self.free_ns = max(self.free_ns, now_ns) + service_ns
        self.leaving.append((self.free_ns, size_bytes))
        return self.free_ns

    def is_lost(self, packet, attempt=0):
        u32 = self.losses.u64(ENTITY, (attempt << 40) + packet) >> 32
        lost = u32 < round(self.profile.loss.p * 2**32)
        self.lost += lost
        return lost

    def once(self, now_ns, sizes):
        """Each packet sent once: the time it left, None where it did not get through; and when the last one left."""
        left = [self.try_packet(now_ns, size) for size in sizes]
        fates = [self.is_lost(self.packets + place) if time_ns else True for place, time_ns in enumerate(left)]
        self.packets += len(sizes)
        through = [None if lost else time_ns for time_ns, lost in zip(left, fates, strict=True)]
        return through, max((time_ns for time_ns in left if time_ns), default=None)

    def end(self, number, now_ns, complete_ns, last_ns):
        """Delivered or not, and when: at once, where nothing left."""
        if last_ns is None:
            return False, now_ns
        extra_ns = self.profile.propagation_delay + self.extra_ns(number)
        return complete_ns is not None, (last_ns if complete_ns is None else complete_ns) + extra_ns


def datagrams(profile, messages):
    plain, ends = Plain(profile), []
    for number, message in enumerate(messages):
        through, last_ns = plain.once(message.time_ns, plain.sizes(message.payload_bytes))
        ends.append(plain.end(number, message.time_ns, last_ns if all(through) else None, last_ns))
    return plain, ends


def coded(profile, messages):
    plain, ends, config = Plain(profile), [], profile.transport
    for number, message in enumerate(messages):
        sizes = plain.sizes(message.payload_bytes)
        blocks = [sizes[start : start + config.data] for start in range(0, len(sizes), config.data)]
        wire = [size for block in blocks for size in (*block, *[max(block)] * config.parity)]
        through, last_ns = plain.once(message.time_ns, wire)
        complete_ns, place = 0, 0
        for block in blocks:
            arrived = [time_ns for time_ns in through[place : place + len(block) + config.parity] if time_ns]
            place += len(block) + config.parity
            complete_ns = max(complete_ns, arrived[len(block) - 1] if len(arrived) >= len(block) else FOREVER)
        ends.append(plain.end(number, message.time_ns, complete_ns if complete_ns < FOREVER else None, last_ns))
    return plain, ends


def one_by_one(profile, messages):
    """Stop-and-wait, a packet at a time."""
    plain, ends, config, clear_ns = Plain(profile), [], profile.transport, 0
    for number, message in enumerate(messages):
        sizes = dict(enumerate(plain.sizes(message.payload_bytes), plain.packets))
        plain.packets += len(sizes)
        deadline_ns = FOREVER if config.patience is None else message.time_ns + config.patience
        delay_ns = profile.propagation_delay + plain.extra_ns(number)
        now_ns, ended_ns, gave_up, left_ns = max(message.time_ns, clear_ns), None, False, clear_ns
        for packet, size in sizes.items():
            for attempt in range(config.max_retransmissions + 1):
                gave_up = gave_up or now_ns >= deadline_ns
                if gave_up:
                    break
                left_ns = plain.try_packet(now_ns, size)
                if not plain.is_lost(packet, attempt):
                    ended_ns = left_ns + delay_ns
                    now_ns = ended_ns + profile.propagation_delay
                    break
                now_ns = left_ns + config.timeout
            else:
                gave_up = True
            if gave_up:
                break
        delivered = not gave_up and ended_ns <= deadline_ns
        ended_ns = ended_ns if delivered else min(now_ns if gave_up else deadline_ns, deadline_ns)
        clear_ns = now_ns if delivered else max(clear_ns, left_ns, ended_ns if left_ns > clear_ns else 0)
        ends.append((delivered, ended_ns))
    return plain, ends


def profiles(transports):
    @st.composite
    def draw_one(draw):
        mtu = draw(st.integers(2, 300))
        jitter = {"law": "uniform", "mean": "4 ms", "std": "2 ms"}
        return LinkProfile(
            name="any",
            rate_up=f"{draw(st.integers(1, 3_000_000))} bit/s",
            rate_down="1 bit/s",
            propagation_delay=f"{draw(st.integers(0, 10**8))} ns",
            jitter=draw(st.sampled_from([None, jitter])),
            loss=draw(st.sampled_from([0.0, 0.01, 0.3, 0.9])),
            mtu=f"{mtu} B",
            header=f"{draw(st.integers(1, mtu - 1))} B",
            queue=f"{draw(st.integers(mtu, 40 * mtu))} B",
            transport=draw(transports),
        )

    return draw_one()


@st.composite
def message_lists(draw, max_bytes=400):
    gaps = draw(st.lists(st.integers(0, 10**8) | st.just(0), min_size=1, max_size=12))
    times = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    return [Sent(time_ns, draw(st.integers(0, max_bytes))) for time_ns in times]


@st.composite
def waiting(draw):
    patience_ns = draw(st.none() | st.integers(1, 10**9))
    return {
        "kind": "stop-and-wait",
        "timeout": f"{draw(st.integers(1, 10**7))} ns",
        "max_retransmissions": draw(st.integers(0, 4)),
        **({} if patience_ns is None else {"patience": f"{patience_ns} ns"}),
    }


FEC = st.builds(
    lambda data, parity: {"kind": "fec", "data": data, "parity": parity}, st.integers(1, 6), st.integers(1, 4)
)


def check(model, profile, messages):
    plain, ends = model(profile, messages)
    transfers, account = exercise(lambda env: link_of(env, profile, entity=ENTITY, seed=SEED), messages)
    assert [(item.delivered, item.ended_ns) for item in transfers] == ends
    assert account.wire_bytes == sum(size for _, size in plain.leaving) == sum(item.wire_bytes for item in transfers)
    assert (account.lost_packets, account.dropped_packets) == (plain.lost, plain.dropped)
    assert account.packets + account.retransmissions == len(plain.leaving) + plain.dropped
    assert account.ack_bytes in {0, (len(plain.leaving) - plain.lost) * profile.header}
    for item in transfers:
        parts = (
            item.window_ns,
            item.queue_ns,
            item.serialise_ns,
            item.retransmit_ns,
            item.propagate_ns,
            item.jitter_ns,
        )
        assert min(parts) >= 0
        assert sum(parts) == item.ended_ns - item.sent_ns
    return transfers, account


@settings(deadline=None, max_examples=200)
@given(profile=profiles(st.just("datagram")), messages=message_lists())
def test_datagrams_equal_the_plain_model(profile, messages):
    transfers, account = check(datagrams, profile, messages)
    assert {item.fate for item in transfers} <= {Fate.DELIVERED, Fate.LOST}
    assert account.ack_bytes == account.retransmissions == 0


@settings(deadline=None, max_examples=300)
@given(profile=profiles(FEC), messages=message_lists(1500))
def test_coded_datagrams_equal_the_plain_model(profile, messages):
    _, account = check(coded, profile, messages)
    assert account.ack_bytes == account.retransmissions == 0


@settings(deadline=None, max_examples=300)
@given(profile=profiles(waiting()), messages=message_lists())
def test_stop_and_wait_equals_the_plain_model(profile, messages):
    transfers, account = check(one_by_one, profile, messages)
    assert account.dropped_packets == 0
    assert {item.fate for item in transfers} <= {Fate.DELIVERED, Fate.TIMEOUT}
