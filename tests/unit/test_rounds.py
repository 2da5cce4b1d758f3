"""Packets that are handed over together: each one's coming is a step of the clock, and the call changes nothing."""

from __future__ import annotations

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.network_models.exercise import Sent, exercise
from testbed.network_models.ports.fifo import FifoPort
from testbed.network_models.ports.packet import OneByOne
from testbed.scenarios.profiles import LinkProfile
from tests.links import arq, link_of
from tests.paths import hop_port, link_over

MS = 1_000_000


def test_each_packet_arrives_in_a_step_of_its_own_at_its_instant():
    # 8 Mbit/s: a full packet takes 1.5 ms, the last of 140 B 0.14 ms; 10 ms on the way. An arrival is acknowledged.
    env = simpy.Environment()
    profile = LinkProfile(
        name="steps", rate_up="8 Mbit/s", rate_down="8 Mbit/s", propagation_delay="10 ms", resolution="packets"
    )
    link = link_of(env, profile)
    link.send(3 * 1460 + 100)
    seen = []
    while env.peek() != float("inf"):
        before = link.snapshot().ack_bytes
        env.step()
        arrived = (link.snapshot().ack_bytes - before) // 40
        if arrived:
            seen.append((env.now / MS, arrived))
    assert seen == [(11.5, 1), (13, 1), (14.5, 1), (14.64, 1)]


@st.composite
def cases(draw):
    """Over one port or two; queues that refuse some, rates that change under way."""
    hop = {"propagation_delay": "3 ms", "loss": draw(st.sampled_from([0, 0.2])), "mtu": "300 B"}
    hop["queue"] = f"{draw(st.integers(300, 6000))} B"
    if draw(st.booleans()):
        hop["jitter"] = {"law": "exponential", "mean": "1 ms"}
    states = [{"rate": "200 kbit/s", "mean": "2 ms"}, {"rate": "900 kbit/s", "mean": "3 ms"}]
    rate = draw(st.sampled_from(["3 Mbit/s", {"kind": "markov", "states": states}]))
    transport = draw(st.sampled_from([{"kind": "datagram"}, {"kind": "fec", "data": 3, "parity": 1}, arq()]))
    hops = [{**hop, "rate_up": rate}, *[{**hop, "rate_up": "2500 kbit/s"}] * draw(st.integers(0, 1))]
    gaps = draw(st.lists(st.integers(0, 10**7), min_size=1, max_size=5))
    messages = [Sent(sum(gaps[: place + 1]), draw(st.integers(0, 4000))) for place in range(len(gaps))]
    return transport, hops, messages


@settings(deadline=None, max_examples=60)
@given(case=cases())
def test_a_round_fares_as_its_packets_would_one_by_one(case):
    transport, hops, messages = case
    profile = LinkProfile(
        name="any", rate_up="1 Gbit/s", rate_down="1 Gbit/s", propagation_delay=0, mtu="300 B", transport=transport
    )

    def make(env):
        return link_over(env, profile, [hop_port(env, place, **hop) for place, hop in enumerate(hops)])

    together = exercise(make, messages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FifoPort, "offer_round", OneByOne.offer_round)
        assert exercise(make, messages) == together
