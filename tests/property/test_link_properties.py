"""The link against a plain packet-by-packet model that shares no code with it but the keyed draws."""

from __future__ import annotations

import heapq
from fractions import Fraction
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.core.rng import Stream
from testbed.network_models.exercise import Sent, exercise
from testbed.network_models.losses.bernoulli import BernoulliLoss
from testbed.network_models.origin import Origin
from testbed.network_models.transfer import Direction, Fate, Transfer
from testbed.scenarios.profiles import LinkProfile
from tests.links import arq, changed, link_of

SEED, ENTITY = 5, 2


class PacketModel:
    """Each packet of each round on its own; times in exact fractions until they are rounded up per packet."""

    def __init__(self, profile):
        self.profile = profile
        self.losses = Stream.named(SEED, "link.up.loss")
        self.leaving = []  # (end of last bit, bytes) of every packet ever taken
        self.free_ns = 0

    def try_packet(self, now_ns, size_bytes):
        """The time its last bit leaves, or None when the queue is full."""
        backlog = sum(size for end_ns, size in self.leaving if end_ns > now_ns)
        if backlog + size_bytes > self.profile.queue.limit:
            return None
        service_ns = ceil(Fraction(size_bytes * 8 * 10**9, self.profile.rate_up.rate))
        self.free_ns = max(self.free_ns, now_ns) + service_ns
        self.leaving.append((self.free_ns, size_bytes))
        return self.free_ns

    def is_lost(self, packet, attempt):
        u32 = self.losses.u64(ENTITY, (attempt << 40) + packet) >> 32
        return u32 < round(self.profile.loss.p * 2**32)

    def sizes(self, payload_bytes):
        room = self.profile.mtu - self.profile.header
        left = [min(room, payload_bytes - start) for start in range(0, payload_bytes, room)] or [0]
        return [part + self.profile.header for part in left]

    def run(self, messages):
        """Where it all goes: a heap of rounds, (time, repeat before new, order), and a transfer per message."""
        agenda, state, packets = [], {}, 0
        for number, message in enumerate(messages):
            sizes = self.sizes(message.payload_bytes)
            state[number] = {"sizes": dict(enumerate(sizes, packets)), "first": None, "wire": 0, "again": 0}
            packets += len(sizes)
            heapq.heappush(agenda, (message.time_ns, 1, number, number, 0, tuple(state[number]["sizes"])))
        transfers, order = {}, 0
        while agenda:
            now_ns, _, _, number, attempt, wanted = heapq.heappop(agenda)
            mine = state[number]
            start_ns, end_ns, missing = max(now_ns, self.free_ns), now_ns, []
            for packet in wanted:
                left_ns = self.try_packet(now_ns, mine["sizes"][packet])
                if left_ns is not None:
                    end_ns = left_ns
                    mine["wire"] += mine["sizes"][packet]
                if left_ns is None or self.is_lost(packet, attempt):
                    missing.append(packet)
            start_ns = min(start_ns, end_ns)  # nothing taken: no wait either
            mine["first"] = mine["first"] or (start_ns, end_ns)
            mine["again"] += len(wanted) if attempt else 0
            expiry_ns = end_ns + self.profile.transport.timeout
            if missing and attempt < self.profile.transport.max_retransmissions:
                order += 1
                heapq.heappush(agenda, (expiry_ns, 0, order, number, attempt + 1, tuple(missing)))
            else:
                ended_ns = expiry_ns if missing else end_ns + self.profile.propagation_delay
                transfers[number] = self.transfer(messages[number], mine, ended_ns, not missing)
        return [transfers[number] for number in range(len(messages))]

    def transfer(self, message, mine, ended_ns, delivered):
        start_ns, end_ns = mine["first"]
        propagate_ns = self.profile.propagation_delay if delivered else 0
        return Transfer(
            sent_ns=message.time_ns,
            ended_ns=ended_ns,
            payload_bytes=message.payload_bytes,
            wire_bytes=mine["wire"],
            num_packets=len(mine["sizes"]),
            num_retransmissions=mine["again"],
            fate=Fate.DELIVERED if delivered else Fate.TIMEOUT,
            queue_ns=start_ns - message.time_ns,
            serialise_ns=end_ns - start_ns,
            propagate_ns=propagate_ns,
            jitter_ns=0,
            retransmit_ns=ended_ns - propagate_ns - end_ns,
        )


@st.composite
def profiles(draw):
    mtu = draw(st.integers(2, 300))
    return LinkProfile(
        name="any",
        rate_up=f"{draw(st.integers(1, 3_000_000))} bit/s",
        rate_down="1 bit/s",
        propagation_delay=f"{draw(st.integers(0, 10**8))} ns",
        loss=draw(st.sampled_from([0.0, 0.01, 0.3, 0.9])),
        mtu=f"{mtu} B",
        header=f"{draw(st.integers(1, mtu - 1))} B",
        queue=f"{draw(st.integers(mtu, 40 * mtu))} B",
        transport=arq(timeout=f"{draw(st.integers(1, 10**7))} ns", max_retransmissions=draw(st.integers(0, 5))),
    )


@st.composite
def message_lists(draw, max_bytes=400):
    gaps = draw(st.lists(st.integers(0, 10**7) | st.just(0), min_size=1, max_size=12))
    times = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    return [Sent(time_ns, draw(st.integers(0, max_bytes))) for time_ns in times]


def run_link(profile, messages):
    return exercise(lambda env: link_of(env, profile, entity=ENTITY, seed=SEED), messages)


@settings(deadline=None, max_examples=300)
@given(profile=profiles(), messages=message_lists())
def test_equals_the_packet_by_packet_model(profile, messages):
    transfers, account = run_link(profile, messages)
    model = PacketModel(profile)
    assert transfers == model.run(messages)
    assert account.wire_bytes == sum(size for _, size in model.leaving)


@settings(deadline=None, max_examples=100)
@given(profile=profiles(), messages=message_lists(), factor=st.integers(2, 50))
def test_more_bandwidth_is_never_later_on_a_link_without_loss(profile, messages, factor):
    slow = changed(profile, loss=0.0, queue="1 GB")
    fast = changed(slow, rate_up=f"{slow.rate_up.rate * factor} bit/s")
    for late, early in zip(run_link(slow, messages)[0], run_link(fast, messages)[0], strict=True):
        assert early.ended_ns <= late.ended_ns


@settings(deadline=None, max_examples=100)
@given(profile=profiles(), messages=message_lists())
def test_without_jitter_or_loss_messages_arrive_in_order(profile, messages):
    lossless = changed(profile, loss=0.0, queue="1 GB")
    ends = [item.ended_ns for item in run_link(lossless, messages)[0]]
    assert ends == sorted(ends)


@settings(deadline=None, max_examples=100)
@given(profile=profiles(), messages=message_lists(), stretch=st.integers(2, 1000))
def test_a_packets_fate_does_not_depend_on_when_it_is_sent(profile, messages, stretch):
    roomy = changed(profile, queue="1 GB")
    stretched = [Sent(message.time_ns * stretch, message.payload_bytes) for message in messages]
    fates = [
        [(item.delivered, item.num_retransmissions, item.wire_bytes) for item in run_link(roomy, sending)[0]]
        for sending in (messages, stretched)
    ]
    assert fates[0] == fates[1]


@settings(deadline=None, max_examples=100)
@given(
    p_loss=st.floats(0, 0.999),
    gaps=st.lists(st.integers(1, 60), min_size=1, max_size=30),
    sizes=st.lists(st.integers(1, 90), min_size=30, max_size=30),
    attempt=st.integers(0, 1000),
    seed=st.integers(0, 2**64 - 1),
)
def test_many_and_few_packets_meet_the_same_losses(p_loss, gaps, sizes, attempt, seed):
    stream = Stream.named(seed, "link.up.loss")
    loss = BernoulliLoss(BernoulliLoss.Config(p=p_loss), Origin(seed=seed, direction=Direction.UP, entity=7), None)
    first = 0
    for gap, size in zip(gaps, sizes, strict=False):
        first += gap
        packets = [*range(first, first + size), first + size + gap]  # with a hole, as drop-tail leaves it
        draws = [stream.u64(7, (attempt << 40) + packet) >> 32 for packet in packets]
        expected = [packet for packet, u32 in zip(packets, draws, strict=True) if u32 < round(p_loss * 2**32)]
        assert loss.lost(packets, attempt) == expected
        first = packets[-1]


@settings(deadline=None, max_examples=20)
@given(sizes=st.lists(st.integers(1, 12_000), min_size=1, max_size=6), gap=st.integers(0, 3), seed=st.integers(0, 99))
def test_large_messages_and_single_packets_meet_the_same_losses(sizes, gap, seed):
    origin = Origin(seed=seed, direction=Direction.UP, entity=7)
    by_message, by_packet = (BernoulliLoss(BernoulliLoss.Config(p=0.01), origin, None) for _ in range(2))
    first = 0
    for size in sizes:
        packets = range(first, first + size)
        lost = by_message.lost(packets, 0)
        assert lost == [packet for packet in packets if by_packet.is_lost(packet, 0, 0)]
        assert by_message.lost(lost, 1) == [packet for packet in lost if by_packet.is_lost(packet, 1, 0)]
        first += size + gap
