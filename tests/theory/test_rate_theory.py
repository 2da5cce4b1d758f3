"""Rates at random against their laws, within computed intervals; the outage rate against its closed form."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from scipy import stats

from testbed.core.capacity import outage_rate_bps, shannon_bps, worst_transmit_ns
from testbed.core.portable import exp2, exponential, from_decibels, ln, log2, normal_pair
from testbed.core.rng import Stream
from testbed.network_models.channel import build_channel
from testbed.network_models.origin import Origin
from testbed.network_models.rates.markov import MarkovRate, time_shares
from testbed.network_models.rates.segments import finish_ns
from testbed.network_models.transfer import Direction
from testbed.scenarios.profiles import LinkProfile
from testbed.testing.link_contract import ALPHA, binomial_interval
from tests.rates import rate_of

MS = 1_000_000
SECOND = 1000 * MS
BLOCKS = 20_000
RAYLEIGH = {"bandwidth": "10 MHz", "snr": "10 dB", "coherence_time": "1 ms"}


def test_portable_functions_are_the_librarys():
    for power in range(-400, 400):
        value = 1.37 ** (power / 2)
        assert ln(value) == pytest.approx(math.log(value), rel=3e-16, abs=3e-16)
        assert log2(value) == pytest.approx(math.log2(value), rel=1e-15, abs=1e-15)
        assert exp2(power / 7) == pytest.approx(2 ** (power / 7), rel=1e-15)


def test_portable_draws_have_their_laws():
    stream = Stream.named(3, "test")
    draws = [exponential(stream, 1, number) for number in range(10_000)]
    normals = [normal_pair(stream, 2, number) for number in range(10_000)]
    assert stats.kstest(draws, "expon").pvalue > ALPHA
    for values in zip(*normals, strict=True):
        assert stats.kstest(values, "norm").pvalue > ALPHA
    assert stats.pearsonr(*zip(*normals, strict=True)).pvalue > ALPHA


@pytest.mark.parametrize(
    ("mhz", "decibels", "eps", "mbps"),
    [(10, 10, 0.1, 10.38), (10, 10, 0.01, 1.382), (10, 10, 0.001, 0.144), (10, 20, 0.01, 10.04), (20, 20, 0.01, 20.07)],
)
def test_the_outage_rate_has_its_check_values(mhz, decibels, eps, mbps):
    rate_bps = outage_rate_bps(mhz * 1e6, from_decibels(decibels), eps)
    assert rate_bps / 1e6 == pytest.approx(mbps, rel=5e-4, abs=5e-4)
    assert worst_transmit_ns(16_384, mhz * 1e6, from_decibels(decibels), eps) == math.ceil(
        16_384 * 8 * SECOND / rate_bps
    )


@pytest.mark.parametrize("eps", [0.001, 0.01, 0.1, 0.5])
def test_rayleigh_fading_is_in_outage_as_often_as_planned(eps):
    rate = rate_of("rayleigh", **RAYLEIGH)
    planned_bps = outage_rate_bps(10e6, 10.0, eps)
    outages = sum(rate.segment(block * MS).rate_bps < planned_bps for block in range(BLOCKS))
    low, high = binomial_interval(outages, BLOCKS)
    assert low <= eps <= high


def test_all_but_eps_of_the_messages_within_a_block_meet_the_planned_time():
    """A message begins with each block, and none of them outlasts its own."""
    rate, eps = rate_of("rayleigh", **{**RAYLEIGH, "coherence_time": "1 s"}), 0.1
    worst_ns = worst_transmit_ns(1500, 10e6, 10.0, eps)
    late = sum(finish_ns(rate, block * SECOND, 1500) > block * SECOND + worst_ns for block in range(BLOCKS // 4))
    low, high = binomial_interval(late, BLOCKS // 4)
    assert low <= eps <= high


@pytest.mark.parametrize("k_decibels", [-10, 3, 10])
def test_rician_fading_has_its_mean_and_its_outages(k_decibels):
    rate = rate_of("rician", **RAYLEIGH, k_factor=f"{k_decibels} dB")
    gains = [rate.gain(block) for block in range(BLOCKS)]
    k = 10 ** (k_decibels / 10)
    std = math.sqrt((1 + 2 * k) / (1 + k) ** 2)
    assert sum(gains) / BLOCKS == pytest.approx(1, abs=stats.norm.isf(ALPHA / 2) * std / math.sqrt(BLOCKS))
    for threshold in (0.05, 0.3, 1.0):
        p = stats.ncx2.cdf(2 * (k + 1) * threshold, 2, 2 * k)  # 1 - Q1(sqrt(2 K), sqrt(2 (K + 1) x)), Marcum's
        low, high = binomial_interval(sum(gain < threshold for gain in gains), BLOCKS)
        assert low <= p <= high


def test_fading_carries_shannons_capacity_rounded_down():
    rate = rate_of("rayleigh", **RAYLEIGH, efficiency=0.7, max_rate="20 Mbit/s")
    for block in range(200):
        rate_bps = rate.segment(block * MS + 5).rate_bps
        assert rate_bps == min(20_000_000, int(0.7 * shannon_bps(10e6, rate.snr(block * MS + 5))))
        assert rate.segment(block * MS) == rate.segment(block * MS + MS - 1) == (rate_bps, (block + 1) * MS)


def test_path_loss_shadowing_and_speed():
    free = {"distance": "1 km", "transmit_power": "20 dBm"}
    keys = {"bandwidth": "10 MHz", "speed": "36 km/h", "carrier": "2.4 GHz", "k_factor": "300 dB"}  # a still channel
    snr_db = 10 * math.log10(rate_of("rician", **keys, path_loss=free).snr(0))
    wave_m = 299_792_458 / 2.4e9
    assert snr_db == pytest.approx(20 - 20 * math.log10(4 * math.pi * 1000 / wave_m) - (-174 + 70), abs=1e-6)
    steep = {**free, "exponent": 3.5, "reference": "100 m", "noise_figure": "7 dB", "antenna_gain": "12 dB"}
    steeper_db = 10 * math.log10(rate_of("rician", **keys, path_loss=steep).snr(0))
    assert steeper_db == pytest.approx(snr_db - 15 - 7 + 12, abs=1e-6)
    coherence_ns = rate_of("rician", **keys, path_loss=free).segment(0).end_ns
    assert coherence_ns == round(0.423 * wave_m / 10 * SECOND)
    shadowed = {**free, "shadowing": "8 dB"}
    drawn = [
        10 * math.log10(rate_of("rician", **keys, path_loss=shadowed, entity=entity).snr(0)) - snr_db
        for entity in range(2000)
    ]
    assert stats.kstest([shadow / 8 for shadow in drawn], "norm").pvalue > ALPHA
    down = rate_of("rician", **keys, path_loss=shadowed, entity=7, direction=Direction.DOWN)
    assert 10 * math.log10(down.snr(0)) - snr_db == pytest.approx(drawn[7], abs=1e-6)


CHAIN = {
    "states": [
        {"rate": "9 Mbit/s", "mean": "30 ms"},
        {"rate": "2 Mbit/s", "mean": "10 ms"},
        {"rate": "0 bit/s", "mean": "5 ms"},
    ],
    "transitions": [[0, 0.9, 0.1], [0.5, 0, 0.5], [0.25, 0.75, 0]],
}


def test_a_markov_rate_spends_the_stationary_share_of_time_in_each_state():
    """At one instant of each of many links: these are independent, and no link's start is special."""
    config = MarkovRate.Config(kind="markov", **CHAIN)
    shares = time_shares(config)
    balance = [sum(shares[i] / (30, 10, 5)[i] * CHAIN["transitions"][i][j] for i in range(3)) for j in range(3)]
    assert balance == pytest.approx([share / mean for share, mean in zip(shares, (30, 10, 5), strict=True)])
    for at_ns in (0, 40 * MS):
        origins = (Origin(seed=1, direction=Direction.UP, entity=entity) for entity in range(1000))
        seen = [MarkovRate(config, origin).segment(at_ns).rate_bps for origin in origins]
        for share, rate_bps in zip(shares, (9_000_000, 2_000_000, 0), strict=True):
            low, high = binomial_interval(seen.count(rate_bps), len(seen))
            assert low <= share <= high


def test_sojourns_are_exponential_and_followed_as_their_row_says():
    rate, now_ns, path = rate_of("markov", **CHAIN), 0, []
    while len(path) < 9000:
        rate_bps, end_ns = rate.segment(now_ns)
        path.append((rate_bps, end_ns - now_ns))
        now_ns = end_ns
    means_ms = {9_000_000: 30, 2_000_000: 10, 0: 5}
    for rate_bps, mean_ms in means_ms.items():
        stays = [stay / (mean_ms * MS) for seen, stay in path[1:-1] if seen == rate_bps]
        assert stats.kstest(stays, "expon").pvalue > ALPHA
    after = [second for (first, _), (second, _) in pairwise(path) if first == 2_000_000]
    low, high = binomial_interval(after.count(0), len(after))
    assert low <= 0.5 <= high


def outage_rate(*outages, entity=0, direction=Direction.UP):
    profile = LinkProfile(
        name="p", rate_up="8 Mbit/s", rate_down="8 Mbit/s", propagation_delay=0, outages=list(outages)
    )
    return build_channel(profile, Origin(seed=3, direction=direction, entity=entity)).rate


def test_random_outages_come_as_a_poisson_process_of_times_up():
    law = {"law": "gamma", "mean": "300 ms", "std": "200 ms"}
    rate, now_ns, up, out = outage_rate({"kind": "random", "mean_gap": "2 s", "duration": law}), 0, [], []
    while len(out) < 3000:
        rate_bps, end_ns = rate.segment(now_ns)
        (up if rate_bps else out).append(end_ns - now_ns)
        now_ns = end_ns
    assert stats.kstest([time / (2 * SECOND) for time in up], "expon").pvalue > ALPHA
    shape = (300 / 200) ** 2
    gamma = stats.gamma(shape, scale=300 * MS / shape)
    assert stats.kstest(out, gamma.cdf).pvalue > ALPHA
    assert rate.segment(now_ns - 1) == outage_rate(
        {"kind": "random", "mean_gap": "2 s", "duration": law}, direction=Direction.DOWN
    ).segment(now_ns - 1), "both directions have the same outages"
