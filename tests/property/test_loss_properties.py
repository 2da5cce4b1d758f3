"""Whatever a link loses, copies, corrupts and delays: it is its own, the same again, and all of it is accounted for."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.network_models.exercise import Sent, exercise
from testbed.scenarios.profiles import LinkProfile
from tests.links import link_of

TRANSPORTS = ["datagram", {"kind": "fec", "data": 4, "parity": 2}, "stop-and-wait", "selective-repeat", "tcp", "quic"]


@st.composite
def profiles(draw):
    p = st.floats(0, 0.4)
    gilbert_elliott = {"kind": "gilbert-elliott", "mean_loss": draw(p), "mean_burst": draw(st.floats(1, 9))}
    jitter = {"law": "gamma", "mean": "4 ms", "std": "3 ms", "reorder": draw(st.booleans())}
    jitter |= {"correlation_time": draw(st.sampled_from(["0 s", "20 ms"]))}
    jitter |= {"per": draw(st.sampled_from(["message", "packet"]))}
    return LinkProfile(
        name="any",
        rate_up="10 Mbit/s",
        rate_down="10 Mbit/s",
        propagation_delay="5 ms",
        jitter=jitter,
        loss=draw(st.sampled_from([draw(p), gilbert_elliott])),
        duplicate=draw(p),
        corrupt=draw(p),
        queue=draw(st.sampled_from(["20 kB", {"kind": "codel", "limit": "20 kB"}])),
        transport=draw(st.sampled_from(TRANSPORTS)),
    )


MESSAGES = st.lists(st.tuples(st.integers(0, 5 * 10**7), st.integers(0, 30_000)), min_size=1, max_size=8)


def send(profile, messages, *, neighbours=0):
    times = sorted(time_ns for time_ns, _ in messages)
    sent = [Sent(time_ns, size) for time_ns, (_, size) in zip(times, messages, strict=True)]

    def make(env):
        for entity in range(neighbours):
            link_of(env, profile, entity=100 + entity, seed=7).send(20_000)
        return link_of(env, profile, entity=3, seed=7)

    return exercise(make, sent)


@settings(deadline=None, max_examples=60)
@given(profile=profiles(), messages=MESSAGES, neighbours=st.integers(1, 4))
def test_other_links_change_no_draw_and_the_same_seed_gives_the_same_trace(profile, messages, neighbours):
    alone = send(profile, messages)
    assert send(profile, messages) == alone
    assert send(profile, messages, neighbours=neighbours)[0] == alone[0]


@settings(deadline=None, max_examples=60)
@given(profile=profiles(), messages=MESSAGES)
def test_every_packet_and_every_byte_is_accounted_for(profile, messages):
    transfers, account = send(profile, messages)
    handed_over = account.packets + account.retransmissions
    gone = account.dropped_packets + account.lost_packets + account.corrupt_packets
    assert gone <= handed_over
    assert account.duplicate_packets <= handed_over
    assert account.delivered + account.lost == account.messages == len(messages)
    assert account.payload_bytes == sum(size for _, size in messages)
    assert account.payload_bytes == account.delivered_payload_bytes + account.lost_payload_bytes
    for transfer in transfers:
        assert transfer.ended_ns >= transfer.sent_ns
        assert not transfer.is_corrupt or (transfer.delivered and profile.corrupt > 0)
        checks = profile.transport.kind not in {"datagram", "fec"}
        assert not (checks and transfer.is_corrupt)
