"""TAB-Q's invariants, and the figures that follow from its formulas on Gaussian rows."""

import numpy as np
import pytest

from testbed.codecs.compiling import kernels
from testbed.codecs.reference import (
    INT_L2,
    INT_MEAN,
    INT_REL,
    TabqSetting,
    accepts,
    narrowed,
    reference_codes,
)

INFINITY = 0x7F800000


def gaussian(num_tokens, hidden_size=4096, seed=0):
    return np.random.default_rng(seed).standard_normal((num_tokens, hidden_size)).astype(np.float32)


def widths(states, delta, test=INT_L2, qmin=2, qmax=8):
    return kernels().tabq_pack(states, INFINITY, TabqSetting(test, delta, qmin, qmax))[0]


@pytest.mark.parametrize(("delta", "width"), [(0.0, 8), (0.75, 7), (1.5, 6), (3.0, 5), (6.0, 4), (12.0, 3), (24.0, 2)])
def test_mean_test_gives_one_width_to_all_gaussian_rows(delta, width):
    # A code is off by 2^(8 - b) / 4 on average, and each tolerance lies half way between two of these.
    assert (widths(gaussian(64), delta, INT_MEAN) == width).all()


@pytest.mark.parametrize(
    ("width", "percent"), [(8, 0.43), (7, 1.14), (6, 1.88), (5, 3.53), (4, 6.95), (3, 13.8), (2, 27.7)]
)
def test_relative_error_of_each_width_without_centroid(width, percent):
    errors = []
    for row in gaussian(400, seed=1):
        scale, codes = reference_codes(row)
        decoded = np.sign(row) * scale * (narrowed(codes, width).astype(np.int64) << (8 - width))
        errors.append(np.linalg.norm(decoded - row) / np.linalg.norm(row))
    assert 100 * np.mean(errors) == pytest.approx(percent, rel=0.02)


def test_an_outlier_costs_the_mean_test_its_bits_and_the_l2_test_none_of_its_accuracy():
    states = gaussian(64, seed=2)
    states[:, 11] = 32
    bulk = np.delete(np.arange(4096), 11)

    def bulk_error(test, delta):
        packed = kernels().tabq_pack(states, INFINITY, TabqSetting(test, delta, 2, 8))
        decoded = kernels().tabq_unpack(*packed[:3], 4096)
        return np.linalg.norm((decoded - states)[:, bulk]) / np.linalg.norm(states[:, bulk])

    assert bulk_error(INT_MEAN, 6.0) > 0.5
    assert bulk_error(INT_L2, 0.07) < 0.08
    assert widths(states, 0.07).mean() > widths(states, 6.0, INT_MEAN).mean() + 2


@pytest.mark.parametrize("test", [INT_L2, INT_MEAN, INT_REL])
def test_widths_never_rise_with_the_tolerance(test):
    states = np.vstack([gaussian(20, 300, seed=3), gaussian(20, 300, seed=4) ** 5])
    tolerances = [0, 0.01, 0.03, 0.05, 0.1, 0.2, 0.4, 1, 3, 9, 27, 100]
    found = np.array([widths(states, float(delta), test) for delta in tolerances])
    assert (np.diff(found.astype(int), axis=0) <= 0).all()
    assert len(np.unique(found)) > 3


@pytest.mark.parametrize("test", [INT_L2, INT_MEAN, INT_REL])
def test_trying_from_either_end_and_bisection_agree(test):
    for row in np.vstack([gaussian(10, 200, seed=5), gaussian(10, 200, seed=6) ** 3]):
        _, codes = reference_codes(row)
        for delta in (0.02, 0.08, 0.3, 2.0, 8.0):
            accepted = [width for width in range(2, 9) if accepts(codes, width, test, delta)]
            assert accepted == list(range(min(accepted), 9)), "a wider grid is never worse"
            assert widths(row[None], delta, test)[0] == min(accepted)


def test_the_tolerance_of_the_l2_test_bounds_the_relative_error_of_codes():
    states = gaussian(50, seed=7)
    for delta in (0.04, 0.1, 0.35):
        for row, width in zip(states, widths(states, delta), strict=True):
            _, codes = reference_codes(row)
            error = codes.astype(float) - (narrowed(codes, width).astype(int) << (8 - width))
            assert np.linalg.norm(error) <= delta * np.linalg.norm(codes.astype(float))
            assert width == 2 or not accepts(codes, width - 1, INT_L2, delta)


def test_rows_are_independent_of_order_and_neighbours():
    states = np.vstack([gaussian(9, 257, seed=8) ** power for power in (1, 3, 5)])
    states[4] = states[17]
    found = widths(states, 0.1)
    order = np.random.default_rng(9).permutation(len(states))
    np.testing.assert_array_equal(widths(states[order], 0.1), found[order])
    assert found[4] == found[17]


def test_widths_stay_within_their_limits():
    states = np.vstack([gaussian(5, 100), gaussian(5, 100) ** 9])
    assert set(widths(states, 0.0, qmin=3, qmax=5)) == {5}
    assert set(widths(states, 10.0, qmin=3, qmax=5)) == {3}


def test_rows_too_small_for_a_scale_decode_to_zero():
    states = np.array([[1e-45, -1e-40], [255 * 2.0**-126, 0], [254 * 2.0**-126, 0], [0, 0]], np.float32)
    found, scales, payload, _ = kernels().tabq_pack(states, INFINITY, TabqSetting(INT_L2, 0.0, 2, 8))
    assert (found > 0).tolist() == [False, True, False, False]
    decoded = kernels().tabq_unpack(found, scales, payload, 2)
    assert (decoded != 0).tolist() == [[False, False], [True, False], [False, False], [False, False]]


@pytest.mark.parametrize(("width", "top"), list(enumerate([192, 224, 240, 248, 252, 254, 255], start=2)))
def test_the_largest_value_decodes_low_at_few_bits(width, top):
    row = np.array([[255.0, 1.0]], np.float32)
    packed = kernels().tabq_pack(row, INFINITY, TabqSetting(INT_L2, 1e9, width, width))
    half = 0.5 if width < 8 else 0
    assert kernels().tabq_unpack(*packed[:3], 2)[0, 0] == pytest.approx(top - half)
