"""Keyed draws: the same on every path, uniform, independent."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from testbed.core.rng import (
    MASK64,
    Draws,
    Stream,
    entity_key,
    mix64,
    probability_u32,
    stream_key,
)

ALPHA = 1e-4  # how often a right generator would fail a statistical test, were its seed not fixed
UINT64 = st.integers(0, MASK64)


def test_mix_is_splitmix64s():
    # The reference's own first outputs for seed 1234567: it mixes the seed plus k times the golden gamma.
    state, outputs = 1234567, []
    for _ in range(5):
        state = (state + 0x9E3779B97F4A7C15) & MASK64
        outputs.append(mix64(state))
    assert outputs == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


# Goldens of our own: they stand for every digest ever recorded, and may change only together with all of them.
GOLDEN_KEYS = {
    (0, "arrivals"): 13076890356191314465,
    (1, "arrivals"): 17471879381987517300,
    (1, "link.up.loss"): 877316888431813864,
    (2**63 - 1, "é"): 17240224715755509818,
}
GOLDEN_DRAWS = {
    (0, 0): 9431847418261372018,
    (0, 1): 17097533964566367609,
    (1, 0): 10024314520240029329,
    (2**64 - 1, 2**50): 12739807294060020327,
}
GOLDEN_ENTITY = 18013337773555005470
CODE = """
from testbed.core.rng import Stream, entity_key, stream_key
stream = Stream.named(1, "arrivals")
print(stream_key(1, "link.up.loss"), entity_key("phones", 3), [stream.u64(entity, 5) for entity in range(3)])
"""


def test_golden_keys_and_draws():
    assert {key: stream_key(*key) for key in GOLDEN_KEYS} == GOLDEN_KEYS
    stream = Stream.named(1, "arrivals")
    assert {key: stream.u64(*key) for key in GOLDEN_DRAWS} == GOLDEN_DRAWS
    assert entity_key("phones", 3) == GOLDEN_ENTITY


def test_keys_do_not_depend_on_the_hash_seed():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", CODE], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1")
    }
    assert len(outputs) == 1


@given(key=UINT64, entity=UINT64, first=st.integers(0, 2**52), count=st.integers(0, 40))
def test_python_ints_and_arrays_give_the_same_bits(key, entity, first, count):
    stream = Stream(key)
    run = stream.u64_run(entity, first, count)
    assert run.dtype == np.uint64
    assert run.tolist() == [stream.u64(entity, first + index) for index in range(count)]


NUMBERS = st.one_of(
    st.lists(st.integers(0, 2**40), max_size=80),
    st.builds(lambda first, count: range(first, first + count), st.integers(0, 2**40), st.integers(0, 200)),
)
BOUNDS = st.one_of(st.integers(1, 2**32), st.sampled_from([1, 2, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32]))


@given(key=UINT64, base=st.integers(0, 2**50), numbers=NUMBERS, bound=BOUNDS)
def test_numbers_whose_draws_are_below_a_bound_are_found(key, base, numbers, bound):
    draws = Draws(key)
    expected = [number for number in numbers if draws.u64(base + number) >> 32 < bound]
    assert draws.where_below(bound, numbers, base) == expected


@given(key=UINT64, first=st.integers(0, 2**40), count=st.integers(1, 200), data=st.data())
def test_a_draw_is_below_every_bound_above_it_and_no_other(key, first, count, data):
    """Bounds next to a draw are where an early exit would go wrong."""
    numbers, draws = range(first, first + count), Draws(key)
    number = data.draw(st.sampled_from(numbers))
    u32 = draws.u64(number) >> 32
    assert number in draws.where_below(u32 + 1, numbers)
    assert u32 == 0 or number not in draws.where_below(u32, numbers)


@given(key=UINT64, entity=UINT64, counter=st.integers(0, 2**52), bound=st.integers(1, 2**40))
def test_bounds_hold(key, entity, counter, bound):
    stream = Stream(key)
    assert 0 <= stream.u64(entity, counter) <= MASK64
    assert 0.0 <= stream.uniform(entity, counter) < 1.0
    assert 0 <= stream.below(bound, entity, counter) < bound


def test_a_uniform_is_below_one_even_at_the_largest_draw():
    assert ((MASK64 >> 11) * 2.0**-53) < 1.0
    assert int((MASK64 >> 11) * 2.0**-53 * 12345) == 12344


def test_below_reaches_both_ends():
    stream = Stream.named(3, "dice")
    assert {stream.below(6, 0, counter) for counter in range(200)} == set(range(6))
    assert {stream.below(1, 0, counter) for counter in range(9)} == {0}


def chi_square_p(values, num_cells):
    """Of values in [0, 1) spread over equal cells."""
    counts = np.bincount((np.asarray(values) * num_cells).astype(int), minlength=num_cells)
    return stats.chisquare(counts).pvalue


@pytest.mark.parametrize("along", ["counter", "entity", "seed"])
def test_draws_are_uniform_along_every_part_of_the_key(along):
    if along == "counter":
        values = Stream.named(1, "a").u64_run(5, 0, 100_000) / 2.0**64
    elif along == "entity":
        values = [Stream.named(1, "a").uniform(entity, 5) for entity in range(20_000)]
    else:
        values = [Stream.named(seed, "a").uniform(5, 5) for seed in range(20_000)]
    assert chi_square_p(values, 100) > ALPHA
    low_bits = [math.modf(value * 2.0**32)[0] for value in values]
    assert chi_square_p(low_bits, 64) > ALPHA


@pytest.mark.parametrize("shift", ["counter", "entity", "seed", "name"])
def test_neighbouring_keys_are_independent(shift):
    """Pairs of draws whose keys differ by one step fill a 16 x 16 grid evenly."""
    count = 40_000
    first = Stream.named(1, "a").u64_run(7, 0, count) / 2.0**64
    second = {
        "counter": Stream.named(1, "a").u64_run(7, 1, count),
        "entity": Stream.named(1, "a").u64_run(8, 0, count),
        "seed": Stream.named(2, "a").u64_run(7, 0, count),
        "name": Stream.named(1, "b").u64_run(7, 0, count),
    }[shift] / 2.0**64
    table = np.histogram2d(first, second, bins=16, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(table.ravel()).pvalue > ALPHA


def test_half_of_the_bits_flip_with_any_bit_of_the_key():
    stream, flips, trials = Stream.named(9, "avalanche"), 0, 0
    for counter in range(50):
        for bit in range(50):
            flips += (stream.u64(0, counter) ^ stream.u64(0, counter ^ (1 << bit))).bit_count()
            trials += 64
    assert stats.binomtest(flips, trials, 0.5).pvalue > ALPHA


def test_members_of_groups_have_keys_of_their_own():
    keys = {entity_key(name, place) for name in ("pis", "phones", "", "pis0") for place in range(1000)}
    assert len(keys) == 4000


def test_probability_thresholds():
    assert probability_u32(0.0) == 0
    assert probability_u32(1.0) == 2**32
    threshold, count = probability_u32(0.3), 100_000
    hits = int((Stream.named(4, "p").u64_run(0, 0, count) >> np.uint64(32) < threshold).sum())
    assert stats.binomtest(hits, count, 0.3).pvalue > ALPHA
