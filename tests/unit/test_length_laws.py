"""Laws of lengths and of times: their stated moments are those of what they draw, and of references."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy import stats

from testbed.core.rng import Stream
from testbed.scenarios.laws import Duration, Length
from testbed.workloads.durations import duration_law
from testbed.workloads.lengths import length_law
from tests.sim_runs import S

ALPHA = 1e-4
Z = stats.norm.ppf(1 - ALPHA / 2)
NUM_DRAWS = 100_000
U = Stream.named(7, "sample").uniform_each(np.full(NUM_DRAWS, 3, dtype=np.uint64), np.arange(NUM_DRAWS))

LENGTHS = {
    "fixed": {"law": "fixed", "value": 9},
    "uniform": {"law": "uniform", "low": 3, "high": 240},
    "empirical": {"law": "empirical", "values": [5, 1, 5, 800, 44]},
    "geometric": {"law": "geometric", "mean": 6.5, "max": 10**6},
    "geometric, cut": {"law": "geometric", "mean": 20, "max": 12},
    "always one": {"law": "geometric", "mean": 1, "max": 7},
    "lognormal": {"law": "lognormal", "mean": 900, "std": 700, "max": 10**8},
    "lognormal, cut": {"law": "lognormal", "mean": 40, "std": 90, "max": 128},
    "lognormal, small": {"law": "lognormal", "mean": 1.2, "std": 0.9, "max": 50},
    "lognormal, long": {"law": "lognormal", "mean": 120_000, "std": 60_000, "max": 250_000},
}
TIMES = {
    "fixed": ({"law": "fixed", "value": "3 s"}, None),
    "uniform": ({"law": "uniform", "low": "2 s", "high": "9 s"}, stats.uniform(2, 7)),
    "exponential": ({"law": "exponential", "mean": "250 ms"}, stats.expon(scale=0.25)),
    "lognormal": (
        {"law": "lognormal", "mean": "5 s", "std": "2 s"},
        stats.lognorm(math.sqrt(math.log1p(0.16)), scale=5 / math.sqrt(1.16)),
    ),
}


def test_a_files_column_is_an_empirical_law(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("when,in\n1,5\n2,1\n\n3,5\n4,800\n5,44\n")
    read = {"law": "empirical", "file": str(file), "column": "in"}
    law = length_law(TypeAdapter(Length).validate_python(read))
    assert law.at(U).tolist() == lengths("empirical").at(U).tolist()
    assert (law.mean, law.variance) == (lengths("empirical").mean, lengths("empirical").variance)


def lengths(name):
    return length_law(TypeAdapter(Length).validate_python(LENGTHS[name]))


def times(name):
    return duration_law(TypeAdapter(Duration).validate_python(TIMES[name][0]))


def assert_moments(values, mean, variance):
    """Sampled mean and variance within intervals from the sampled fourth moment."""
    deviations = values - mean
    assert abs(deviations.mean()) <= Z * math.sqrt(variance / len(values)) + 1e-12
    squares = deviations**2
    assert abs(squares.mean() - variance) <= Z * squares.std() / math.sqrt(len(values)) + 1e-9 * variance


@pytest.mark.parametrize("name", LENGTHS)
def test_lengths_have_the_moments_they_state(name):
    law = lengths(name)
    values = law.at(U)
    assert values.min() >= 1
    assert_moments(values.astype(float), law.mean, law.variance)


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("uniform", stats.randint(3, 241)),
        ("geometric", stats.geom(1 / 6.5)),
        ("empirical", stats.rv_discrete(values=([1, 5, 44, 800], [0.2, 0.4, 0.2, 0.2]))),
    ],
)
def test_moments_are_those_of_scipy(name, law):
    assert (lengths(name).mean, lengths(name).variance) == pytest.approx((law.mean(), law.var()), rel=1e-9)


def test_a_cut_geometric_law_has_its_weight_at_the_cut():
    law, p, support = lengths("geometric, cut"), 1 / 20, np.arange(1, 13)
    weights = np.append(p * (1 - p) ** (support[:-1] - 1), (1 - p) ** 11)
    mean = float(support @ weights)
    assert (law.mean, law.variance) == pytest.approx((mean, float((support - mean) ** 2 @ weights)), rel=1e-9)


@pytest.mark.parametrize(("mean", "std", "most"), [(40, 90, 128), (1.2, 0.9, 50), (120_000, 60_000, 250_000)])
def test_a_lognormal_laws_moments_are_sums_over_its_rounded_values(mean, std, most):
    law = length_law(TypeAdapter(Length).validate_python({"law": "lognormal", "mean": mean, "std": std, "max": most}))
    sigma = math.sqrt(math.log1p((std / mean) ** 2))
    before = stats.lognorm(sigma, scale=mean / math.sqrt(1 + (std / mean) ** 2))
    support = np.arange(1, most + 1)
    weights = np.diff(np.concatenate([[0.0], before.cdf(support[:-1] + 0.5), [1.0]]))
    expected = float(support @ weights)
    assert law.mean == pytest.approx(expected, rel=1e-8)
    assert law.variance == pytest.approx(float((support - expected) ** 2 @ weights), rel=1e-6)


@pytest.mark.parametrize("name", TIMES)
def test_times_have_the_moments_they_state(name):
    law = times(name)
    assert_moments(law.at(U) / S, law.mean_ns / S, (law.std_ns / S) ** 2)


@pytest.mark.parametrize("name", ["uniform", "exponential", "lognormal"])
def test_times_have_the_distribution_of_scipys_law(name):
    law, reference = times(name), TIMES[name][1]
    assert stats.kstest(law.at(U) / S, reference.cdf).pvalue > ALPHA
    assert (law.mean_ns / S, law.std_ns / S) == pytest.approx((reference.mean(), reference.std()), rel=1e-12)
