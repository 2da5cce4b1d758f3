"""Jitter correlated in time: the law of a single draw stays, and draws are alike as long as they should be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from testbed.network_models.jitter import Jitter, jitter_law
from testbed.network_models.origin import Origin
from testbed.network_models.transfer import Direction
from testbed.network_models.wave import Wave
from testbed.scenarios.jitter import JitterConfig

ALPHA = 1e-4  # how often a right model would fail a statistical test, were its seed not fixed
Z = stats.norm.ppf(1 - ALPHA / 2)
MS = 1_000_000
TAU = 100 * MS


def origin_of(entity=3, seed=5):
    return Origin(seed=seed, direction=Direction.UP, entity=entity)


def normal_scores(waves, time_ns):
    """z of each wave at an instant, from its rank."""
    ranks = np.asarray([wave.u32(time_ns) for wave in waves], dtype=float)
    return stats.norm.ppf((ranks + 0.5) / 2**32)


@pytest.fixture(scope="module")
def waves():
    return [Wave(TAU, origin_of(entity), "jitter") for entity in range(1500)]


def test_a_waves_rank_is_uniform_at_any_instant(waves):
    for time_ns in (0, 12_345 * MS):
        ranks = np.asarray([wave.u32(time_ns) for wave in waves]) / 2**32
        assert stats.kstest(ranks, "uniform").pvalue > ALPHA


@pytest.mark.parametrize("lag", [0.05, 0.7, 2.5])
def test_a_waves_autocorrelation_is_exponential(waves, lag):
    start_ns = 777 * MS  # in the middle of a block
    first, second = normal_scores(waves, start_ns), normal_scores(waves, start_ns + round(lag * TAU))
    # Given that m of four levels are kept z1 z2 has mean m / 4 and variance 1 + (m / 4)^2; m is binomial.
    rho = math.exp(-lag)
    variance = 1 + rho**2 + 2 * rho * (1 - rho) / 4
    assert abs((first * second).mean() - rho) < Z * math.sqrt(variance / len(waves))


def test_neighbours_and_other_directions_are_independent(waves):
    first = normal_scores(waves, 50 * MS)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < Z / math.sqrt(len(first))


@settings(deadline=None, max_examples=40)
@given(times=st.lists(st.integers(0, 50 * TAU), min_size=2, max_size=20), entity=st.integers(0, 2**63))
def test_a_wave_has_one_value_at_an_instant_whoever_asks_when(times, entity):
    asked = Wave(TAU, origin_of(entity), "jitter")
    forwards = {time_ns: asked.u32(time_ns) for time_ns in times}
    backwards = {time_ns: asked.u32(time_ns) for time_ns in reversed(times)}
    alone = {time_ns: Wave(TAU, origin_of(entity), "jitter").u32(time_ns) for time_ns in times}
    assert forwards == backwards == alone


# Of one wave: golden, as digests are; it stands for runs with correlated jitter on every machine.
GOLDEN_RANKS = [3989771981, 3989771981, 2794161328, 2794161328, 1028549438]


def test_golden_ranks():
    wave = Wave(TAU, origin_of(), "jitter")
    assert [wave.u32(time_ms * MS) for time_ms in (0, 10, 100, 101, 5000)] == GOLDEN_RANKS


LAWS = [
    {"law": "gamma", "mean": "4 ms", "std": "2 ms"},
    {"law": "normal", "mean": "20 ms", "std": "5 ms"},
    {"law": "pareto", "mean": "4 ms", "std": "2 ms"},
    {"law": "empirical", "values": ["1 ms", "2 ms", "7 ms", "3 ms"]},
]


@pytest.mark.parametrize("keys", LAWS)
@pytest.mark.parametrize("correlation_time", ["0 s", "100 ms"])
def test_correlation_leaves_the_law_of_a_draw_as_it_is(keys, correlation_time):
    config = JitterConfig(**keys, correlation_time=correlation_time)
    draws = [Jitter(config, origin_of(entity)).delay_ns(0, 30 * MS) for entity in range(1000)]
    quantile = jitter_law(config).quantile
    deciles = [quantile(k / 10) for k in range(1, 10)]
    observed = np.bincount(np.searchsorted(deciles, draws), minlength=10)
    assert stats.chisquare(observed).pvalue > ALPHA


@pytest.mark.parametrize("keys", LAWS[2:])
def test_close_messages_see_like_delays_and_distant_ones_do_not(keys):
    config = JitterConfig(**keys, correlation_time="100 ms")
    jitters = [Jitter(config, origin_of(entity)) for entity in range(800)]
    pairs = {gap: [(one.delay_ns(0, 0), one.delay_ns(1, gap * MS)) for one in jitters] for gap in (1, 100, 1000)}
    found = {gap: stats.spearmanr(np.asarray(values)).statistic for gap, values in pairs.items()}
    # Spearman's rho of a normal copula of correlation c is 6 / pi asin(c / 2); a mixture of copulas is close to it.
    for gap, rho in found.items():
        expected = 6 / math.pi * math.asin(math.exp(-gap / 100) / 2)
        assert abs(rho - expected) < Z / math.sqrt(len(jitters)) + 0.02
