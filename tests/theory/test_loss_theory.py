"""Losses against their laws: rates within intervals that know of correlation, bursts by their lengths, exact draws."""

from __future__ import annotations

import math
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from testbed.core.registry import LOSSES
from testbed.core.rng import Stream
from testbed.network_models.origin import Origin
from testbed.network_models.rates.constant import ConstantRate
from testbed.network_models.transfer import Direction
from testbed.scenarios.problems import validate

ALPHA = 1e-4  # how often a right model would fail a statistical test, were its seed not fixed
Z = stats.norm.ppf(1 - ALPHA / 2)


def origin_of(seed=5, entity=3, direction=Direction.UP):
    return Origin(seed=seed, direction=direction, entity=entity)


def loss_of(config, origin=None):
    """A loss as a link builds it, on a link of constant rate."""
    kind = LOSSES.load(config["kind"])
    origin = origin or origin_of()
    rate = ConstantRate(ConstantRate.Config(rate="1 Mbit/s"), origin)
    return kind(validate(kind.Config, config), origin, rate)


def gilbert_elliott(**keys):
    return {"kind": "gilbert-elliott", **keys}


def fates(config, count, chunk=997, **origin):
    """Whether each of so many transmissions is lost, asked for in chunks."""
    loss, lost = loss_of(config, origin_of(**origin)), np.zeros(count, dtype=bool)
    for first in range(0, count, chunk):
        lost[loss.lost(range(first, min(count, first + chunk)), 0)] = True
    return lost


CHAINS = [
    {"p": 0.01, "r": 0.25},
    {"p": 0.002, "r": 0.05, "loss_good": 0.001, "loss_bad": 0.6},
    {"p": 0.7, "r": 0.9},  # anticorrelated: a loss makes the next one less likely
    {"p": 1.0, "r": 1.0},
    {"mean_loss": 0.02, "mean_burst": 8},
    {"mean_loss": 0.1, "mean_burst": 3.5, "loss_good": 0.01, "loss_bad": 0.9},
]


@pytest.mark.parametrize("keys", CHAINS)
def test_gilbert_elliott_loses_at_its_rate(keys):
    config, count = validate(LOSSES.load("gilbert-elliott").Config, gilbert_elliott(**keys)), 3_000_000
    p, r = config.chain
    bad = p / (p + r)
    mean = config.loss_good * (1 - bad) + config.loss_bad * bad
    if "mean_loss" in keys:
        assert mean == pytest.approx(keys["mean_loss"])
        assert 1 / r == pytest.approx(keys["mean_burst"])
    # The states' autocorrelation falls by 1 - p - r a step, so n losses vary as n (1 + c) / (1 - c) of them would.
    kept = 1 - p - r
    inflation = 2 * kept / (1 - kept) * bad * (1 - bad) * (config.loss_bad - config.loss_good) ** 2
    half_width = Z * math.sqrt((mean * (1 - mean) + inflation) / count) + 1 / count
    lost = fates(gilbert_elliott(**keys), count, chunk=100_000)
    assert abs(lost.mean() - mean) < half_width
    assert half_width < 0.15 * mean


def test_bursts_of_gilberts_channel_are_geometric():
    p, r = 0.05, 0.3
    lost = fates(gilbert_elliott(p=p, r=r), 400_000)
    for value, leave in ((True, r), (False, p)):
        lengths = [len(list(run)) for is_lost, run in groupby(lost.tolist()) if is_lost is value][1:-1]
        most = 1
        while len(lengths) * (1 - leave) ** most >= 20:
            most += 1  # the last cell holds the tail
        edges = [1 - (1 - leave) ** k for k in range(most)] + [1.0]
        observed = np.bincount(np.minimum(lengths, most), minlength=most + 1)[1:]
        assert stats.chisquare(observed, len(lengths) * np.diff(edges)).pvalue > ALPHA


def test_the_chain_starts_in_its_stationary_law():
    firsts = [loss_of(gilbert_elliott(p=0.02, r=0.06), origin_of(entity=k)).is_lost(0, 0, 0) for k in range(2000)]
    assert stats.binomtest(sum(firsts), 2000, 0.25).pvalue > ALPHA


def plain_chain(p, r, good, bad, *, count, seed, entity):
    """The definition, a step at a time: draw k moves the state from transmission k to k + 1."""
    names = ("loss.state", "loss", "loss.start")
    states, losses, start = (Stream.named(seed, f"link.up.{name}") for name in names)
    is_bad, lost = start.u64(entity, 0) >> 32 < round(p / (p + r) * 2**32), []
    for k in range(count):
        lost.append(losses.u64(entity, k) >> 32 < round((bad if is_bad else good) * 2**32))
        is_bad = states.u64(entity, k) >> 32 < round((1 - r if is_bad else p) * 2**32)
    return lost


probabilities = st.floats(0, 1)


@settings(deadline=None, max_examples=60)
@given(
    chain=st.tuples(probabilities, st.floats(0.01, 1)),
    losses=st.tuples(probabilities, probabilities),
    chunks=st.lists(st.integers(0, 700) | st.just(-1), min_size=1, max_size=8),
    seed=st.integers(0, 2**32),
)
def test_chunks_and_single_packets_walk_the_same_chain(chain, losses, chunks, seed):
    (p, r), (good, bad) = chain, sorted(losses)
    config = gilbert_elliott(p=p, r=r, loss_good=good, loss_bad=bad)
    loss, found, place = loss_of(config, origin_of(seed=seed)), [], 0
    for size in chunks:  # -1: one packet on its own; numbers and attempts say nothing, places do
        if size < 0:
            found.append(loss.is_lost(7, 3, 10**9))
            place += 1
            continue
        numbers = range(5, 5 + 2 * size, 2)
        gone = set(loss.lost(numbers, 2))
        found += [number in gone for number in numbers]
        place += size
    assert found == plain_chain(p, r, good, bad, count=place, seed=seed, entity=3)


KINDS = [{"kind": "bernoulli", "p": 0.2}, gilbert_elliott(p=0.1, r=0.3), gilbert_elliott(mean_loss=0.1, mean_burst=2)]


@pytest.mark.parametrize("config", KINDS)
def test_many_at_once_are_lost_as_one_by_one(config):
    count = 3000
    one_by_one, loss = fates(config, count), loss_of(config)
    assert [loss.is_lost(packet, 0, packet) for packet in range(count)] == one_by_one.tolist()
    assert fates(config, count, chunk=1).tolist() == one_by_one.tolist()


@pytest.mark.parametrize("config", KINDS)
def test_every_seed_link_and_direction_has_draws_of_its_own(config):
    base = fates(config, 500).tolist()
    assert fates(config, 500).tolist() == base
    for other in ({"seed": 6}, {"entity": 4}, {"direction": Direction.DOWN}):
        assert fates(config, 500, **other).tolist() != base


@pytest.mark.parametrize("p", [0.001, 0.1, 0.9])
def test_bernoulli_losses_come_at_their_rate_and_without_memory(p):
    count = 200_000
    lost = fates({"kind": "bernoulli", "p": p}, count)
    assert stats.binomtest(int(lost.sum()), count, p).pvalue > ALPHA
    after_loss = [second for first, second in pairwise(lost.tolist()) if first]
    assert stats.binomtest(sum(after_loss), len(after_loss), p).pvalue > ALPHA
