"""Requests as columns: the same draws as one by one, a million of them quickly and small."""

from __future__ import annotations

import math
from itertools import accumulate
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.core import portable
from testbed.core.portable_arrays import exp_each, exponential_quantile, ln_each, normal_quantile
from testbed.core.rng import Stream, entity_key, entity_keys
from tests.sim_runs import group, scenario, table_of, workload

RATE = 0.7
ASKS = workload(
    arrivals={"kind": "poisson", "rate_per_device": f"{RATE} /s", "requests_per_device": 40},
    prompts={"kind": "random", "length": {"law": "lognormal", "mean": 300, "std": 500, "max": 4000}},
    output_tokens={"law": "uniform", "low": 3, "high": 90},
)


def one_by_one(name, count, seed):
    """The requests of ASKS, each drawn for itself: (arrival, device, prompt, output, sampling seed)."""
    streams = [Stream.named(seed, key) for key in ("arrivals", "lengths.prompt", "lengths.output", "sampling")]
    sigma2 = math.log1p((500 / 300) ** 2)
    law = NormalDist(math.log(300) - sigma2 / 2, math.sqrt(sigma2))
    found = []
    for place in range(count):
        entity = entity_key(name, place)
        gaps, prompts, outputs, choices = (stream.of(entity) for stream in streams)
        draws = (gaps.u64(k) >> 11 for k in range(40))
        arrivals = accumulate(round(-math.log1p(-draw / 2**53) * (1 / RATE) * 1e9) for draw in draws)
        for k, arrival_ns in enumerate(arrivals):
            u = max((prompts.u64(k) >> 11) / 2**53, 2.0**-33)
            prompt = min(4000, max(1, round(math.exp(law.inv_cdf(u)))))
            output = 3 + int((outputs.u64(k) >> 11) / 2**53 * 88)
            found.append((arrival_ns, place, prompt, output, choices.u64(k) >> 1))
    return sorted(found)


def test_a_row_is_what_drawing_it_alone_gives():
    table = table_of(scenario(fleet=[group("g", count=30)], workload=ASKS, seed=9))
    rows = [
        (item.arrival_ns, item.device, item.num_prompt_tokens, item.max_output_tokens, item.sampling_seed)
        for item in table
    ]
    assert rows == one_by_one("g", 30, 9)
    assert [item.request for item in table] == list(range(1200))


def test_rows_stand_alone_in_their_defaults():
    table = table_of(scenario(workload=ASKS))
    assert set(table.after) == set(table.session) == {-1}
    assert not table.gap_ns.any() | table.turn.any() | table.history_tokens.any() | table.kind.any()
    with pytest.raises(IndexError):
        table[len(table)]


def test_a_hundred_thousand_rows_take_under_a_hundred_bytes_each():
    many = scenario(fleet=[group(count=2500)], workload=ASKS)
    table = table_of(many)
    assert len(table) == 100_000
    assert table.num_bytes < 100 * len(table)


@given(st.integers(0, 2**63 - 1), st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**62)), max_size=8))
def test_draws_of_many_pairs_are_those_of_each(seed, pairs):
    stream = Stream.named(seed, "many")
    entities = np.array([entity for entity, _ in pairs], dtype=np.uint64)
    counters = np.array([counter for _, counter in pairs], dtype=np.int64)
    assert stream.u64_each(entities, counters).tolist() == [stream.u64(*pair) for pair in pairs]
    assert stream.uniform_each(entities, counters).tolist() == [stream.uniform(*pair) for pair in pairs]
    for bound in (1, 3, 10**6, 2**32):
        assert stream.below_each(bound, entities, counters).tolist() == [stream.below(bound, *pair) for pair in pairs]


def test_a_groups_keys_are_those_of_its_members():
    assert entity_keys("édge", 300).tolist() == [entity_key("édge", place) for place in range(300)]


GRID = np.concatenate([[2.0**-53, 2.0**-33, 1e-6], np.linspace(0.001, 0.999, 1999), [1 - 1e-6, 1 - 2.0**-53]])


def test_functions_of_arrays_are_the_portable_ones():
    assert ln_each(GRID).tolist() == [portable.ln(value) for value in GRID.tolist()]
    powers = np.linspace(-30, 30, 2001)
    assert exp_each(powers).tolist() == [portable.exp2(power / portable.LN2) for power in powers.tolist()]
    assert exp_each(powers) == pytest.approx(np.exp(powers), rel=1e-14)
    assert exponential_quantile(GRID).tolist() == [-portable.ln(1 - u) for u in GRID.tolist()]


def test_normal_quantiles_are_those_of_the_standard_library():
    law = NormalDist()
    assert normal_quantile(GRID) == pytest.approx([law.inv_cdf(u) for u in GRID.tolist()], rel=1e-14, abs=1e-15)
