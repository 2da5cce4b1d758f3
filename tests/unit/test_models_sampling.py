"""Sampling: bad values refused, streams independent, frequencies as the probabilities say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from testbed.core.errors import ScenarioError
from testbed.models.sampling import Sampler
from testbed.models.sampling_config import SamplingConfig

LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.1], dtype=np.float32))
DRAWS = 2000
FALSE_ALARM = 1e-6


def frequencies(config: SamplingConfig) -> np.ndarray:
    sampler = Sampler(config, seed=11)
    return np.bincount([sampler.sample(LOGITS) for _ in range(DRAWS)], minlength=4)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (SamplingConfig(greedy=False), [0.5, 0.25, 0.15, 0.1]),
        (SamplingConfig(greedy=False, top_k=2), [2 / 3, 1 / 3, 0, 0]),
        (SamplingConfig(greedy=False, top_p=0.8), [5 / 9, 2.5 / 9, 1.5 / 9, 0]),
        (SamplingConfig(greedy=False, temperature=0.5), [0.25 / 0.345, 0.0625 / 0.345, 0.0225 / 0.345, 0.01 / 0.345]),
        (SamplingConfig(), [1, 0, 0, 0]),
    ],
)
def test_tokens_come_as_often_as_their_probability_says(config: SamplingConfig, expected: list[float]) -> None:
    for count, probability in zip(frequencies(config), expected, strict=True):
        low, high = binom.interval(1 - FALSE_ALARM, DRAWS, probability) if 0 < probability < 1 else (0, DRAWS)
        assert low <= count <= high
        assert (count == 0) == (probability == 0)


def test_a_session_s_stream_depends_on_nothing_but_its_seed() -> None:
    config = SamplingConfig(greedy=False)
    alone = Sampler(config, seed=5)
    expected = [alone.sample(LOGITS) for _ in range(50)]
    one, other = Sampler(config, seed=5), Sampler(config, seed=6)
    pairs = [(one.sample(LOGITS), other.sample(LOGITS)) for _ in range(50)]
    assert [first for first, _ in pairs] == expected
    assert [second for _, second in pairs] != expected


def test_greedy_takes_the_first_of_equal_logits() -> None:
    assert Sampler(SamplingConfig(), seed=0).sample(np.array([0.0, 2.0, 2.0], np.float32)) == 1


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (SamplingConfig(temperature=0.0), "temperature"),
        (SamplingConfig(temperature=-1.0), "temperature"),
        (SamplingConfig(temperature=math.nan), "temperature"),
        (SamplingConfig(top_k=-1), "top_k"),
        (SamplingConfig(top_p=0.0), "top_p"),
        (SamplingConfig(top_p=1.5), "top_p"),
    ],
)
def test_values_out_of_range_are_refused(config: SamplingConfig, path: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        Sampler(config, seed=0)
    assert caught.value.path == path
