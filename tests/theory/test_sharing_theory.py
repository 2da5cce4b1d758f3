"""Shared air against queueing theory. Seeds are fixed; ALPHA: how often a right model would fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from testbed.core.units import BITS_PER_BYTE, NS_PER_S
from testbed.network_models.origin import Origin
from testbed.network_models.sharing.collisions import Collisions
from testbed.network_models.transfer import Direction
from tests.shared_air import Sent, Steps, discipline_of, share

ALPHA = 1e-3
MS = 1_000_000
RATE_BPS = 8_000_000  # a byte a microsecond
RATE = Steps(RATE_BPS)
NUM_BATCHES = 40


def poisson(sizes, load, seed):
    """Jobs of these sizes, each of a member of its own, at this load."""
    gaps = np.random.default_rng(seed).exponential(np.mean(sizes) * 1000 / load, len(sizes))
    times = np.cumsum(gaps).astype(int).tolist()
    return [Sent(time_ns, place, int(size)) for place, (time_ns, size) in enumerate(zip(times, sizes, strict=True))]


def sojourns(kind, jobs):
    served, air, _ = share(discipline_of(kind), [RATE] * len(jobs), jobs)
    return np.array([told.end_ns - job.time_ns for job, told in zip(jobs, served, strict=True)], float), air


def interval(values):
    """Mean and half width of its interval, by batch means after a warm-up."""
    batches = np.array_split(values[len(values) // 20 :], NUM_BATCHES)
    means = np.array([batch.mean() for batch in batches])
    half_width = stats.t.ppf(1 - ALPHA / 2, NUM_BATCHES - 1) * means.std(ddof=1) / math.sqrt(NUM_BATCHES)
    return means.mean(), half_width


SIZES = {
    "fixed": lambda draws, num: np.full(num, 1000),
    "exponential": lambda draws, num: np.maximum(1, draws.exponential(1000, num).round()),
    "two values": lambda draws, num: draws.choice([200, 8200], num, p=[0.8, 0.2]),
}


@pytest.mark.parametrize("law", SIZES)
def test_under_processor_sharing_a_job_takes_its_size_over_the_free_share(law):
    # M/G/1-PS: E[T | x] = x / (1 - load) for every law of sizes (Kleinrock 1967; Sakata, Noguchi, Oizumi 1971).
    load, sizes = 0.5, SIZES[law](np.random.default_rng(4), 12_000)
    jobs = poisson(sizes, load, seed=9)
    taken_ns, air = sojourns("processor-sharing", jobs)
    for size in {200, 8200} if law == "two values" else {None}:
        slowdowns = (taken_ns / (sizes * 1000))[slice(None) if size is None else sizes == size]
        mean, half_width = interval(slowdowns)
        assert abs(mean - 1 / (1 - load)) < half_width
        assert half_width < 0.15 * mean  # the interval says something
    end_ns = jobs[-1].time_ns
    assert air.contending_ns(end_ns) / end_ns == pytest.approx(load / (1 - load), rel=0.15)  # Little


def test_first_come_first_served_is_an_m_m_1_queue():
    load, sizes = 0.5, SIZES["exponential"](np.random.default_rng(5), 12_000)
    mean, half_width = interval(sojourns("fifo", poisson(sizes, load, seed=3))[0])
    assert abs(mean - 1000 * 1000 / (1 - load)) < half_width
    assert half_width < 0.15 * mean


def test_fixed_sizes_wait_longer_under_sharing_than_in_turn():
    # The same arrivals: M/D/1 has T/x = 1 + load / (2 (1 - load)), half of what sharing adds.
    jobs = poisson(SIZES["fixed"](None, 12_000), 0.5, seed=9)
    (fifo, fifo_half), (turns, turns_half) = (
        interval(sojourns(kind, jobs)[0] / 1_000_000) for kind in ("fifo", "round-robin")
    )
    assert abs(fifo - 1.5) < fifo_half
    assert abs(turns - 1.5) < turns_half  # one packet each: the same queue


def test_weights_are_shares_whatever_the_rates():
    # Packets for weight x rate x 3 s: at these shares, 6 in all, the last of each link leaves after 18 s.
    rates, weights = [1_000_000, 4_000_000, 10_000_000], [3, 1, 2]
    counts = [3 * weight * rate // (1500 * BITS_PER_BYTE) for rate, weight in zip(rates, weights, strict=True)]
    jobs = [Sent(0, place, 1500) for place, count in enumerate(counts) for _ in range(count)]
    served, _, _ = share(discipline_of("weighted"), [Steps(rate) for rate in rates], jobs, weights=weights)
    for last in np.cumsum(counts) - 1:
        assert served[last].end_ns == pytest.approx(6 * 3 * NS_PER_S, rel=1e-3)


def backlogged(kind, rates, num_slots, **config):
    """Bytes that each of some members sends in so many milliseconds with always more to send."""
    num_packets = num_slots * 2
    jobs = [Sent(0, place, 1500) for place in range(len(rates)) for _ in range(num_packets)]
    until_ns = num_slots * MS
    _, _, members = share(discipline_of(kind, **config), rates, jobs, until_ns=until_ns)
    left = np.array([member.backlog_bytes(until_ns) for member in members])
    assert left.min() > 0
    return num_packets * 1500 - left


def test_what_is_equal_is_air_or_rate():
    # Two links at 2 and 8 Mbit/s for 2 s. Half the air each: 0.25 and 1 MB. The same rate each: 2 x 0.4 MB, since a
    # packet each takes 6 + 1.5 ms (the performance anomaly of Heusse et al. 2003).
    rates = [Steps(2_000_000), Steps(8_000_000)]
    for kind in ("processor-sharing", "proportional-fair"):
        assert backlogged(kind, rates, 2000) == pytest.approx([250_000, 1_000_000], rel=0.01)
    assert backlogged("round-robin", rates, 2000) == pytest.approx([400_000, 400_000], rel=0.01)


def test_proportional_fair_serves_equal_links_in_turn():
    sent = backlogged("proportional-fair", [RATE] * 5, 1000)
    assert sent.max() - sent.min() <= 2 * 1500
    assert sent.sum() == pytest.approx(1_000_000, abs=5 * 1500)


def test_proportional_fair_rides_on_independent_fading():
    # Rates proportional to an exponential gain, a new one each slot (Rayleigh power at low SNR): the best of n links
    # has H_n = 1 + 1/2 + ... + 1/n times the mean (Viswanath, Tse, Laroia 2002), while equal air has the mean.
    num_links, num_slots = 4, 3000
    gains = np.random.default_rng(8).exponential(RATE_BPS, (num_links, num_slots)).round().astype(int)
    rates = [Steps(*row.tolist(), step_ns=MS) for row in gains]
    best = gains.max(axis=0) / BITS_PER_BYTE / 1000
    sent = backlogged("proportional-fair", rates, num_slots, memory="500 ms")
    equal_air = backlogged("processor-sharing", rates, num_slots)
    half_width = stats.t.ppf(1 - ALPHA / 2, num_slots - 1) * best.std(ddof=1) / math.sqrt(num_slots)
    harmonic = sum(1 / place for place in range(1, num_links + 1))
    assert abs(best.mean() - 1000 * harmonic) < half_width  # the law, on these draws
    assert 0.95 * best.sum() < sent.sum() <= best.sum()  # never more than always the best; nearly that
    assert sent.sum() / equal_air.sum() == pytest.approx(harmonic, rel=0.07)
    assert sent.max() < 1.1 * sent.min()  # and fair in the long run


@pytest.mark.parametrize("num_contending", [1, 2, 5])
def test_collisions_are_as_frequent_as_contention_says(num_contending):
    p, num = 0.05, 20_000
    collisions = Collisions(p, Origin(seed=3, direction=Direction.UP, entity=1))
    lost = {packet for packet in range(num) if collisions.is_lost(packet, 0, num_contending)}
    expected = 1 - (1 - p) ** (num_contending - 1)
    assert stats.binomtest(len(lost), num, expected).pvalue > ALPHA
    # One more contender spares nobody: the draw is the packet's own.
    assert lost <= {packet for packet in range(num) if collisions.is_lost(packet, 0, num_contending + 1)}
