"""Packet by packet and message by message: two engines, one answer, on links of any kind."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.core.units import serialisation_ns
from testbed.network_models.build import needs_packets
from testbed.network_models.exercise import Sent, exercise
from testbed.scenarios.profiles import LinkProfile
from tests.links import changed, link_of
from tests.paths import hop_port, link_over

BURSTY = {"kind": "gilbert-elliott", "mean_loss": 0.3, "mean_burst": 3}


def run(profile, messages, resolution):
    """All transfers, and the counters long after the last bit left."""
    made = []

    def make(env):
        made.extend((env, link_of(env, changed(profile, resolution=resolution), entity=3, seed=9)))
        return made[1]

    transfers, _ = exercise(make, messages)
    made[0].run(until=10**18)
    return transfers, made[1].snapshot()


@st.composite
def transports(draw):
    kind = draw(st.sampled_from(["datagram", "fec", "stop-and-wait", "selective-repeat"]))
    if kind == "datagram":
        return {"kind": kind}
    if kind == "fec":
        return {"kind": kind, "data": draw(st.integers(1, 6)), "parity": draw(st.integers(1, 4))}
    patience = {"patience": f"{draw(st.integers(1, 10**9))} ns"} if draw(st.booleans()) else {}
    timeout_ns, repeats = draw(st.integers(1, 10**8)), draw(st.integers(0, 5))
    return {"kind": kind, "timeout": f"{timeout_ns} ns", "max_retransmissions": repeats, **patience}


@st.composite
def profiles(draw):
    """Private links: slow and fast, with queues of a packet and more, delays below and above the time-out."""
    mtu = draw(st.integers(2, 300))
    mean_ns = draw(st.integers(1, 10**7))
    jitter = {"law": "gamma", "mean": f"{mean_ns} ns", "std": f"{draw(st.integers(1, mean_ns))} ns"}
    jitter |= {"reorder": draw(st.booleans()), "correlation_time": f"{draw(st.sampled_from([0, 10**7]))} ns"}
    return LinkProfile(
        name="any",
        rate_up=f"{draw(st.integers(1, 3_000_000) | st.just(2**40))} bit/s",
        rate_down="1 bit/s",
        propagation_delay=f"{draw(st.integers(0, 10**8))} ns",
        jitter=draw(st.none() | st.just(jitter)),
        loss=draw(st.sampled_from([0.0, 0.01, 0.3, 0.9, BURSTY])),
        duplicate=draw(st.sampled_from([0.0, 0.0, 0.4])),
        corrupt=draw(st.sampled_from([0.0, 0.0, 0.3])),
        mtu=f"{mtu} B",
        header=f"{draw(st.integers(1, mtu - 1))} B",
        queue=f"{draw(st.integers(mtu, 40 * mtu))} B",
        transport=draw(transports()),
    )


@st.composite
def message_lists(draw):
    gaps = draw(st.lists(st.integers(0, 10**7) | st.just(0), min_size=1, max_size=12))
    times = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    return [Sent(time_ns, draw(st.integers(0, 400))) for time_ns in times]


@settings(deadline=None, max_examples=200)
@given(profile=profiles(), messages=message_lists())
def test_both_resolutions_give_the_same_answer(profile, messages):
    if not needs_packets(profile):
        assert run(profile, messages, "packets") == run(profile, messages, "messages")


@st.composite
def hops(draw):
    """Lossy, jittery, of different rates, some with room for a packet or two only."""
    mean_ns = draw(st.integers(1, 10**7))
    return {
        "rate_up": f"{draw(st.integers(1000, 10**8))} bit/s",
        "propagation_delay": f"{draw(st.integers(0, 10**7))} ns",
        "jitter": draw(st.none() | st.just({"law": "exponential", "mean": f"{mean_ns} ns"})),
        "loss": draw(st.sampled_from([0.0, 0.1, 0.5])),
        "mtu": "300 B",
        "queue": f"{draw(st.integers(300, 3000))} B",
    }


@settings(deadline=None, max_examples=100)
@given(path=st.lists(hops(), min_size=2, max_size=4), transport=transports(), messages=message_lists())
def test_over_several_hops_the_parts_add_up_and_nothing_is_early(path, transport, messages):
    profile = LinkProfile(
        name="any", rate_up="1 Gbit/s", rate_down="1 Gbit/s", propagation_delay=0, mtu="300 B", transport=transport
    )

    def make(env):
        return link_over(env, profile, [hop_port(env, entity, **hop) for entity, hop in enumerate(path)])

    transfers, account = exercise(make, messages)
    for sent, transfer in zip(messages, transfers, strict=True):
        parts = [transfer.window_ns, transfer.queue_ns, transfer.serialise_ns, transfer.propagate_ns]
        parts += [transfer.jitter_ns, transfer.retransmit_ns]
        assert min(parts) >= 0
        assert sum(parts) == transfer.ended_ns - transfer.sent_ns
        assert (transfer.sent_ns, transfer.payload_bytes) == sent
        if transfer.delivered:
            propagations_ns = sum(int(hop["propagation_delay"].split()[0]) for hop in path)
            slowest_bps = min(int(hop["rate_up"].split()[0]) for hop in path)
            assert transfer.propagate_ns == propagations_ns
            least_ns = propagations_ns + serialisation_ns(sent.payload_bytes, slowest_bps)
            assert transfer.ended_ns - transfer.sent_ns >= least_ns
    assert account.messages == account.delivered + account.lost == len(messages)
    assert account.wire_bytes == sum(transfer.wire_bytes for transfer in transfers)
    handed_over = account.packets + account.retransmissions
    assert handed_over >= account.dropped_packets + account.lost_packets
