"""Tables of quantiles: the same number on every path, and the laws they stand for, far into their tails."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from testbed.core import distributions
from testbed.core.quantiles import NUM_CELLS, NUM_EDGES, QuantileTable
from testbed.core.rng import Stream

ALPHA = 1e-4  # how often a right table would fail a statistical test, were its seed not fixed
U32 = st.integers(0, 2**32 - 1)
ANY_U32 = U32 | st.integers(0, 2**21).map(lambda above: 2**32 - 1 - above)  # every other one in or near the tail


@given(values=st.lists(st.integers(-(2**40), 2**40), min_size=2, max_size=30), draws=st.lists(ANY_U32))
def test_a_tables_values_are_the_same_one_by_one_and_as_an_array(values, draws):
    ordered = np.sort(np.resize(np.asarray(values, dtype=np.int64), NUM_CELLS + NUM_EDGES + 1))
    table = QuantileTable(ordered[: NUM_CELLS + 1], ordered[:NUM_CELLS:-1])
    assert table.values(np.asarray(draws, dtype=np.uint64)).tolist() == [table.value(u32) for u32 in draws]


@given(u32=ANY_U32)
def test_a_uniform_law_is_the_draw_itself(u32):
    table = QuantileTable.from_quantile(lambda u: 2**40 * u)
    assert 0 <= u32 * 2**8 - table.value(u32) <= 1


@given(u32=ANY_U32, other=ANY_U32)
def test_values_never_fall(u32, other):
    table = EXPONENTIAL
    assert table.value(min(u32, other)) <= table.value(max(u32, other))


@given(u32=ANY_U32)
def test_the_rank_of_a_value_is_its_draw(u32):
    assert abs(EXPONENTIAL.rank(EXPONENTIAL.value(u32)) - u32) <= 1


def test_ranks_of_values_outside_are_the_ends():
    assert EXPONENTIAL.rank(-5) == 0
    assert EXPONENTIAL.rank(2**60) == 2**32 - 1


# Closed forms of the laws, and how far a table may lie from them: relative errors of the mean, of the standard
# deviation, of any quantile from the median to 99.9 % and from 99.99 % on, and anywhere from the median on. The widest
# is where one cell spans an octave of tail probability, at 99.96 %. Below the median errors are a share of the std.
LAWS = {
    "uniform": (distributions.uniform(2e6, 8e6), 1e-6, 1e-6, 1e-6, 1e-6),
    "exponential": (distributions.exponential(5e6), 3e-5, 2e-4, 1e-3, 1e-2),
    "normal": (distributions.normal(2e7, 5e6), 1e-4, 2e-3, 1e-3, 4e-3),
    "lognormal": (distributions.lognormal(5e6, 2e6), 1e-5, 5e-4, 1e-3, 1e-2),
    "gamma": (distributions.gamma(5e6, 3e6), 1e-5, 2e-4, 1e-3, 1e-2),
    "pareto": (distributions.pareto(4e6, 2e6), 1e-4, 2e-3, 1e-3, 4e-2),
}
TABLES = {name: QuantileTable.from_quantile(row[0].quantile) for name, row in LAWS.items()}
EXPONENTIAL = QuantileTable.from_quantile(distributions.exponential(5e9).quantile)


@pytest.mark.parametrize("name", LAWS)
def test_a_tables_moments_are_its_laws(name):
    law, mean_error, std_error, *_ = LAWS[name]
    assert TABLES[name].mean == pytest.approx(law.mean, rel=mean_error)
    assert math.sqrt(TABLES[name].variance) == pytest.approx(law.std, rel=std_error)


@pytest.mark.parametrize("name", LAWS)
def test_a_tables_tail_is_its_laws(name):
    law, *_, far_error, any_error = LAWS[name]
    for u in (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999, 1 - 2.0**-30):
        assert TABLES[name].value(int(u * 2**32)) == pytest.approx(law.quantile(u), rel=far_error)
    for u in 1 - np.geomspace(0.5, 1e-7, 500):
        assert TABLES[name].value(int(u * 2**32)) == pytest.approx(law.quantile(u), rel=any_error)


@pytest.mark.parametrize("name", LAWS)
def test_draws_have_the_moments_that_a_table_says(name):
    table, count = TABLES[name], 100_000
    values = table.values(Stream.named(6, name).u64_run(0, 0, count) >> np.uint64(32)).astype(float)
    half_width = stats.norm.ppf(1 - ALPHA / 2) * math.sqrt(table.variance / count)
    assert abs(values.mean() - table.mean) < half_width + 1  # and rounding down
    fourth = np.mean((values - values.mean()) ** 4)
    spread = math.sqrt((fourth - table.variance**2) / count)
    assert abs(values.var() - table.variance) < stats.norm.ppf(1 - ALPHA / 2) * spread
