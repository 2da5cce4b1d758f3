"""Named laws against scipy's: quantiles, moments, and what an empirical one is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from testbed.core import distributions
from testbed.core.errors import ScenarioError

MEAN, STD = 5.0, 2.0
_SIGMA = math.sqrt(math.log1p((STD / MEAN) ** 2))
_TAIL = 1 + math.sqrt(1 + (MEAN / STD) ** 2)
LAWS = {
    "uniform": (distributions.uniform(1.5, 9.0), stats.uniform(1.5, 7.5)),
    "exponential": (distributions.exponential(MEAN), stats.expon(scale=MEAN)),
    "normal": (distributions.normal(MEAN, STD), stats.norm(MEAN, STD)),
    "lognormal": (
        distributions.lognormal(MEAN, STD),
        stats.lognorm(_SIGMA, scale=MEAN / math.sqrt(1 + (STD / MEAN) ** 2)),
    ),
    "gamma": (distributions.gamma(MEAN, STD), stats.gamma((MEAN / STD) ** 2, scale=STD**2 / MEAN)),
    "pareto": (distributions.pareto(MEAN, STD), stats.pareto(_TAIL, scale=MEAN * (_TAIL - 1) / _TAIL)),
}
GRID = np.concatenate([[1e-9, 1e-6, 1e-3], np.linspace(0.01, 0.99, 99), [1 - 1e-3, 1 - 1e-6, 1 - 2.0**-40]])


@pytest.mark.parametrize("name", LAWS)
def test_quantiles_are_those_of_scipy(name):
    ours, theirs = LAWS[name]
    assert [ours.quantile(u) for u in GRID] == pytest.approx(theirs.ppf(GRID), rel=1e-9)


@pytest.mark.parametrize("name", LAWS)
def test_moments_are_those_of_scipy(name):
    ours, theirs = LAWS[name]
    assert (ours.mean, ours.std) == pytest.approx((theirs.mean(), theirs.std()), rel=1e-12)
    assert ours.name == name


@pytest.mark.parametrize("name", LAWS)
def test_a_law_begins_at_a_number(name):
    assert math.isfinite(LAWS[name][0].quantile(0.0))
    assert LAWS[name][0].quantile(0.0) <= LAWS[name][0].quantile(1e-9)


@pytest.mark.parametrize("name", LAWS)
@given(u=st.floats(0, 1, exclude_max=True), v=st.floats(0, 1, exclude_max=True))
def test_quantiles_never_fall(name, u, v):
    quantile = LAWS[name][0].quantile
    assert quantile(min(u, v)) <= quantile(max(u, v))


def test_a_constant_is_constant():
    law = distributions.constant(4.5)
    assert {law.quantile(u) for u in GRID} == {4.5}
    assert (law.mean, law.std) == (4.5, 0.0)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_an_empirical_law_is_linear_between_its_values(values):
    law, ordered = distributions.empirical(values), sorted(values)
    for index, value in enumerate(ordered[:-1]):
        assert law.quantile(index / (len(ordered) - 1)) == pytest.approx(value, abs=1e-6)
    assert law.quantile(1 - 2.0**-53) == pytest.approx(ordered[-1], abs=1e-6)
    expected = np.quantile(values, GRID)
    assert [law.quantile(u) for u in GRID] == pytest.approx(expected, abs=1e-6)


@given(values=st.lists(st.floats(0, 1e4), min_size=1, max_size=6))
def test_an_empirical_laws_moments_are_those_of_its_density(values):
    law = distributions.empirical(values)
    u = (np.arange(200_000) + 0.5) / 200_000
    sample = np.interp(u, np.linspace(0, 1, max(2, len(values))), sorted(values) * (2 if len(values) == 1 else 1))
    assert law.mean == pytest.approx(sample.mean(), rel=1e-6, abs=1e-6)
    assert law.std == pytest.approx(sample.std(), rel=1e-3, abs=1e-2)


def test_one_value_is_a_constant():
    law = distributions.empirical([3.0])
    assert (law.quantile(0.0), law.quantile(0.9), law.mean, law.std) == (3.0, 3.0, 3.0, 0.0)


def test_no_value_is_refused():
    with pytest.raises(ScenarioError, match="at least one value"):
        distributions.empirical([])
