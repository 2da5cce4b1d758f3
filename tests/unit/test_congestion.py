"""Window laws against their formulas, the round trip's estimator, ranges against sets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.network_models.transports.congestion import CONGESTION, Cubic, Reno
from testbed.network_models.transports.ranges import Ranges
from testbed.network_models.transports.round_trip import RoundTrip

SEGMENT, MS, S = 1460, 1_000_000, 1_000_000_000


def round_trips(window, count, round_trip_ns, now_ns=0):
    """Every segment of a full window acknowledged one by one, spread over the round trip."""
    for _ in range(count):
        num_segments = window.window_bytes // SEGMENT
        for number in range(num_segments):
            window.acknowledged(now_ns + round_trip_ns * number // num_segments, SEGMENT, round_trip_ns)
        now_ns += round_trip_ns
    return now_ns


@pytest.mark.parametrize("law", [Reno, Cubic])
def test_slow_start_doubles_up_to_the_threshold(law):
    window = law(SEGMENT, 10)
    sizes = []
    for _ in range(3):
        round_trips(window, 1, 100 * MS)
        sizes.append(window.window_bytes // SEGMENT)
    assert sizes == [20, 40, 80]


def test_reno_halves_and_grows_by_a_segment_a_round_trip():
    window = Reno(SEGMENT, 100)
    window.lost(100 * SEGMENT)
    assert window.window_bytes == window.threshold_bytes == 50 * SEGMENT
    for grown in range(1, 6):
        round_trips(window, 1, 100 * MS)
        assert window.window_bytes == (50 + grown) * SEGMENT
    window.collapsed(40 * SEGMENT, SEGMENT)
    assert (window.window_bytes, window.threshold_bytes) == (SEGMENT, 20 * SEGMENT)
    window.lost(SEGMENT)
    assert window.threshold_bytes == 2 * SEGMENT  # never less


def test_a_pause_brings_the_window_back_and_keeps_the_threshold():
    for law in CONGESTION.values():
        window = law(SEGMENT, 10)
        window.lost(100 * SEGMENT)
        threshold_bytes = window.threshold_bytes
        window.idle()
        assert (window.window_bytes, window.threshold_bytes) == (10 * SEGMENT, threshold_bytes)


@pytest.mark.parametrize(("segments", "round_trip_ms"), [(700, 100), (500, 200)])
def test_cubic_follows_its_function_between_two_losses(segments, round_trip_ms):
    # RFC 9438, figure 1: W(t) = 0.4 (t - K)^3 + W_max with K the cube root of 0.3 W_max / 0.4.
    window = Cubic(SEGMENT, segments)
    window.lost(segments * SEGMENT)
    assert window.window_bytes == segments * 7 // 10 * SEGMENT
    back_s, now_ns = (0.3 * segments / 0.4) ** (1 / 3), 0
    while now_ns < 1.6 * back_s * S:
        now_ns = round_trips(window, 1, round_trip_ms * MS, now_ns)
        expected = 0.4 * (now_ns / S - back_s) ** 3 + segments
        assert window.window_bytes / SEGMENT == pytest.approx(expected, rel=0.01)


def test_cubic_is_no_slower_than_reno_with_the_same_mean_window():
    # On a short path the cubic function is nearly flat; 3 (1 - 0.7) / (1 + 0.7) of a segment a round trip is faster.
    window = Cubic(SEGMENT, 40)
    window.lost(40 * SEGMENT)
    round_trips(window, 15, 5 * MS)
    assert window.window_bytes / SEGMENT == pytest.approx(28 + 15 * 9 / 17, abs=0.7)


def test_time_in_which_the_window_was_not_used_does_not_count_for_cubic():
    window = Cubic(SEGMENT, 1000)
    window.lost(1000 * SEGMENT)
    window.acknowledged(0, SEGMENT, 100 * MS)
    window.not_limited()
    before_bytes = window.window_bytes
    window.acknowledged(5 * S, SEGMENT, 100 * MS)
    # The cubic function climbs by about 3 * 0.4 * K^2 segments a second at first, a tenth of it in a round trip.
    first_s = (750.0) ** (1 / 3)
    assert window.window_bytes - before_bytes <= 3 * 0.4 * first_s**2 * 0.1 * SEGMENT / 700 + 2


def test_cubic_leaves_room_when_it_loses_before_it_is_back():
    window = Cubic(SEGMENT, 1000)
    window.lost(1000 * SEGMENT)
    window.lost(700 * SEGMENT)
    window.acknowledged(0, SEGMENT, MS)  # its epoch begins: back at 0.85 of 700 after K
    back_s = ((0.85 * 700 - 490) / 0.4) ** (1 / 3)
    assert window.cubic_bytes(round(back_s * S)) / SEGMENT == pytest.approx(0.85 * 700, rel=1e-6)


def test_the_round_trip_is_smoothed_as_rfc_6298_says():
    estimate, smoothed, variation = RoundTrip(), None, None
    for sample in (100.0, 120.0, 80.0, 400.0, 100.0):
        estimate.sample(round(sample * MS))
        if smoothed is None:
            smoothed, variation = sample, sample / 2
        else:
            variation = 0.75 * variation + 0.25 * abs(smoothed - sample)
            smoothed = 0.875 * smoothed + 0.125 * sample
        assert estimate.smoothed_ns == pytest.approx(smoothed * MS, abs=2)
        assert estimate.timeout_ns(S, 0, 60 * S) == pytest.approx((smoothed + 4 * variation) * MS, abs=12)
    assert (estimate.least_ns, estimate.latest_ns) == (80 * MS, 100 * MS)
    assert RoundTrip().timeout_ns(S, 0, 60 * S) == S


@settings(deadline=None, max_examples=200)
@given(parts=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=40), n=st.integers(1, 6))
def test_ranges_are_a_set(parts, n):
    ranges, reference = Ranges(), set()
    for start, size in parts:
        new = set(range(start, start + size)) - reference
        fresh = ranges.add(start, start + size)
        assert [number for first, stop in fresh for number in range(first, stop)] == sorted(new)
        reference |= new
    pairs = ranges.pairs()
    assert {number for first, stop in pairs for number in range(first, stop)} == reference
    assert all(stop < start for (_, stop), (start, _) in pairwise(pairs))
    prefix = min(set(range(80)) - reference)
    assert ranges.prefix == prefix
    above = sorted(number for number in reference if number > prefix)
    assert ranges.nth_highest(n) == (above[-n] if len(above) >= n else -1)
    for start, size in parts:
        probe = range(start + 1, start + 1 + size)
        assert ranges.overlaps(probe.start, probe.stop) == bool(reference & set(probe))
    ranges.keep_highest(n)
    assert ranges.pairs() == pairs[-n:]
