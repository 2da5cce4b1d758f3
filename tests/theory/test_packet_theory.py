"""Packets through ports against queueing theory and probability.

Seeds are fixed; ALPHA: how often a right port would fail.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from testbed.network_models.exercise import Sent, exercise
from testbed.scenarios.profiles import LinkProfile
from tests.links import link_of
from tests.paths import hop_port, send_packets

ALPHA = 1e-3
NUM_BATCHES, BATCH = 40, 500
MEAN_NS = 10_000  # of a service: at 8 Gbit/s a byte takes a nanosecond


def interval(values):
    """The mean by batches (Student's t), and half its interval's width."""
    means = np.asarray(values, dtype=float).reshape(NUM_BATCHES, BATCH).mean(axis=1)
    return means.mean(), stats.t.ppf(1 - ALPHA / 2, NUM_BATCHES - 1) * means.std(ddof=1) / math.sqrt(NUM_BATCHES)


def exponential(seed, mean, count=(NUM_BATCHES + 1) * BATCH):
    return np.ceil(np.random.default_rng(seed).exponential(mean, count)).astype(np.int64)


def lindley(arrivals, service):
    """Ends: S_i + max over j <= i of (arrival_j - S_{j-1}), with S the running sum of service times."""
    total = np.cumsum(service)
    return total + np.maximum.accumulate(arrivals - (total - service))


@settings(deadline=None, max_examples=60)
@given(
    gaps=st.lists(st.integers(0, 4_000_000), min_size=1, max_size=60),
    sizes=st.lists(st.integers(1, 6000), min_size=60, max_size=60),
    rates_bps=st.lists(st.integers(1000, 10**9), min_size=1, max_size=4),
    propagation_ns=st.integers(0, 10**8),
)
def test_store_and_forward_follows_lindleys_recursion_exactly(gaps, sizes, rates_bps, propagation_ns):
    env, sizes = simpy.Environment(), np.asarray(sizes[: len(gaps)])
    times = first_times = np.cumsum(gaps)
    ports = []
    for rate_bps in rates_bps:
        ports.append(hop_port(env, rate_up=f"{rate_bps} bit/s", propagation_delay=f"{propagation_ns} ns"))
        times = lindley(times, -(-sizes * 8 * 10**9 // rate_bps)) + propagation_ns
    end = send_packets(env, tuple(ports), first_times, sizes)
    assert list(end.arrived_ns.values()) == times.tolist()


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_sojourn_of_an_m_m_1_queue(load):
    # Exponential of mean service / (1 - load).
    arrivals = np.cumsum(exponential(1, MEAN_NS / load))
    env = simpy.Environment()
    end = send_packets(env, (hop_port(env),), arrivals, exponential(2, MEAN_NS))
    sojourns = (np.asarray(list(end.arrived_ns.values())) - arrivals)[BATCH:]
    expected = MEAN_NS / (1 - load)
    mean, half_width = interval(sojourns)
    assert abs(mean - expected) < half_width < 0.35 * expected
    beyond, half_width = interval(sojourns > 2 * expected)
    assert abs(beyond - math.exp(-2)) < half_width


class NewSize:
    """Between two hops: an independent service there, as Jackson's theorem wants it."""

    propagation_ns = 0

    def __init__(self, sizes):
        self.sizes = sizes

    def offer(self, packet):
        packet.size_bytes = int(self.sizes[packet.number])
        packet.onward()


def test_sojourns_in_a_tandem_of_queues():
    # Jackson: each queue as if alone. Reich: a packet's two sojourns are independent.
    load, services = 0.7, (exponential(12, MEAN_NS), exponential(13, 0.6 * MEAN_NS))
    arrivals = np.cumsum(exponential(11, MEAN_NS / load))
    env = simpy.Environment()
    end = send_packets(env, (hop_port(env), NewSize(services[1]), hop_port(env)), arrivals, services[0])
    left, arrived = np.asarray(list(end.left_ns.values())), np.asarray(list(end.arrived_ns.values()))
    first, second = (left - arrivals)[BATCH:], (arrived - left)[BATCH:]
    for sojourns, expected in ((first, MEAN_NS / (1 - load)), (second, 0.6 * MEAN_NS / (1 - 0.6 * load))):
        mean, half_width = interval(sojourns)
        assert abs(mean - expected) < half_width < 0.2 * expected
    product, half_width = interval((first - first.mean()) * (second - second.mean()))
    assert abs(product) < half_width < 0.2 * first.std() * second.std()


def blocking_of_m_d_1_k(load, room):
    """Solves the chain that a departure leaves behind; P = 1 - 1 / (pi_0 + load). `room` counts the one in service."""
    arrivals = stats.poisson.pmf(np.arange(room + 1), load)
    step = np.zeros((room, room))
    for before in range(room):
        for come in range(room + 1):
            step[before, min(max(before - 1, 0) + come, room - 1)] += arrivals[come]
        step[before, room - 1] += 1 - step[before].sum()
    balance = np.vstack([step.T - np.eye(room), np.ones(room)])
    pi = np.linalg.lstsq(balance, np.asarray([0.0] * room + [1.0]), rcond=None)[0]
    return 1 - 1 / (pi[0] + load)


@pytest.mark.parametrize(("load", "room"), [(0.7, 1), (1.5, 1), (0.7, 4), (1.5, 4)])
def test_a_full_queue_blocks_as_often_as_the_loss_formulas_say(load, room):
    # Packets of one size and room for `room` of them: M/D/1/K. With room for one it is Erlang's formula for one server,
    # which holds whatever the service time's law: load / (1 + load).
    arrivals = np.cumsum(exponential(21, MEAN_NS / load))
    env = simpy.Environment()
    port = hop_port(env, queue=f"{room * MEAN_NS} B", mtu=f"{MEAN_NS} B")
    end = send_packets(env, (port,), arrivals, [MEAN_NS] * len(arrivals))
    expected = load / (1 + load) if room == 1 else blocking_of_m_d_1_k(load, room)
    blocked = np.isin(np.arange(len(arrivals)), list(end.dropped_ns))[BATCH:]
    mean, half_width = interval(blocked)
    assert abs(mean - expected) < half_width < 0.35 * expected
    assert blocking_of_m_d_1_k(load, 1) == pytest.approx(load / (1 + load))


def test_stop_and_wait_sends_a_geometric_number_of_times():
    # Delay: service + propagation, and for each loss before, service + time-out. P(losses = k) = p^k (1 - p).
    num_messages, p_loss, service_ns, timeout_ns = 5000, 0.3, 1_500_000, 50_000_000
    profile = LinkProfile(
        name="arq", rate_up="8 Mbit/s", rate_down="8 Mbit/s", propagation_delay="10 ms", loss=p_loss,
        transport={"kind": "stop-and-wait", "timeout": "50 ms", "max_retransmissions": 1000}, resolution="packets",
    )  # fmt: skip
    messages = [Sent(number * 10**10, 1460) for number in range(num_messages)]
    transfers, _ = exercise(lambda env: link_of(env, profile), messages)
    extra = np.asarray([item.ended_ns - item.sent_ns for item in transfers]) - service_ns - 10_000_000
    losses, rest = np.divmod(extra, service_ns + timeout_ns)
    assert not rest.any()
    most = int(math.log(10 / num_messages) / math.log(p_loss)) - 1  # the last cell holds the tail, 10 expected at least
    expected = [*((1 - p_loss) * p_loss**k for k in range(most)), p_loss**most]
    observed = np.bincount(np.minimum(losses, most), minlength=most + 1)
    assert stats.chisquare(observed, num_messages * np.asarray(expected)).pvalue > ALPHA
