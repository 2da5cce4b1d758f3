"""What holds of every rate, whatever its kind: a pure function of time that nothing outruns."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.core.registry import OUTAGES, RATES
from testbed.network_models.channel import build_channel
from testbed.network_models.exercise import Sent, exercise
from testbed.network_models.origin import Origin
from testbed.network_models.rates.segments import finish_ns, num_finished
from testbed.network_models.transfer import Direction
from testbed.scenarios.profiles import LinkProfile
from tests.links import link_of

MS = 1_000_000
TRACE = "".join(f"{time}\n" for time in (0, 0, 3, 4, 4, 4, 9, 17))
FADING = {"bandwidth": "1 MHz", "snr": "3 dB", "coherence_time": "1700 us"}
# As many kinds as there are: a new row without an entry here fails.
KINDS = {
    "constant": {"rate": "3 Mbit/s"},
    "trace": {"format": "mahimahi", "offset": "random"},
    "markov": {
        "states": [
            {"rate": "5 Mbit/s", "mean": "4 ms"},
            {"rate": "0 bit/s", "mean": "2 ms"},
            {"rate": "700 kbit/s", "mean": "9 ms"},
        ],
        "transitions": [[0, 0.5, 0.5], [0.2, 0, 0.8], [1, 0, 0]],
    },
    "rayleigh": FADING,
    "rician": {**FADING, "k_factor": "4 dB"},
}
HOLES = {
    "schedule": {"times": [{"start": "5 ms", "duration": "3 ms"}, {"start": "7 ms", "duration": "4 ms"}]},
    "periodic": {"every": "11 ms", "duration": "3 ms", "first": "random"},
    "random": {"mean_gap": "6 ms", "duration": {"law": "gamma", "mean": "2 ms", "std": "3 ms"}},
}
rates = pytest.mark.parametrize(
    ("kind", "holes"),
    [(kind, ()) for kind in KINDS] + [("constant", (hole,)) for hole in HOLES] + [("trace", (*HOLES,))],
)
few = settings(max_examples=25)
times = st.integers(0, 90 * MS)
sizes = st.integers(1, 4000)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "t.up"
    path.write_text(TRACE)
    return str(path)


def profile_of(kind, holes, file, *, changes=None, **fields):
    keys = {"kind": kind, **KINDS[kind], **({"file": file} if kind == "trace" else {}), **(changes or {})}
    outages = [{"kind": hole, **HOLES[hole]} for hole in holes]
    return LinkProfile(name="p", rate_up=keys, rate_down="1 Mbit/s", propagation_delay=0, outages=outages, **fields)


def made(kind, holes, file, *, seed=5, entity=2, **changes):
    profile = profile_of(kind, holes, file, changes=changes)
    return build_channel(profile, Origin(seed=seed, direction=Direction.UP, entity=entity)).rate


def segments(rate, until_ns):
    now_ns, found = 0, []
    while now_ns < until_ns:
        rate_bps, end_ns = rate.segment(now_ns)
        found.append((now_ns, end_ns, rate_bps))
        now_ns = end_ns
    return found


def bits(walk, start_ns, end_ns):
    """The integral of the rate."""
    spans = ((min(end, end_ns) - max(start, start_ns), rate_bps) for start, end, rate_bps in walk)
    return sum(Fraction(span * rate_bps, 10**9) for span, rate_bps in spans if span > 0)


def test_every_kind_is_here():
    assert set(KINDS) == set(RATES)
    assert set(HOLES) == set(OUTAGES)


@rates
def test_a_packet_leaves_at_the_first_nanosecond_by_which_the_rate_has_carried_it(kind, holes, file):
    walk = segments(made(kind, holes, file), 400 * MS)

    @few
    @given(start_ns=times, size_bytes=sizes)
    def check(start_ns, size_bytes):
        left_ns = finish_ns(made(kind, holes, file), start_ns, size_bytes)
        assert bits(walk, start_ns, left_ns) >= 8 * size_bytes > bits(walk, start_ns, left_ns - 1)

    check()


@rates
def test_packets_add_up_and_are_counted(kind, holes, file):
    rate = made(kind, holes, file)

    @few
    @given(start_ns=times, size_bytes=sizes, counts=st.tuples(st.integers(0, 9), st.integers(0, 9)), until_ns=times)
    def check(start_ns, size_bytes, counts, until_ns):
        one, more = counts
        both_ns = finish_ns(rate, start_ns, size_bytes, one + more)
        assert both_ns == finish_ns(rate, finish_ns(rate, start_ns, size_bytes, one), size_bytes, more)
        count = num_finished(rate, start_ns, size_bytes, start_ns + until_ns)
        assert finish_ns(rate, start_ns, size_bytes, count) <= start_ns + until_ns
        assert finish_ns(rate, start_ns, size_bytes, count + 1) > start_ns + until_ns

    check()


@rates
def test_who_starts_later_is_never_earlier(kind, holes, file):
    rate = made(kind, holes, file)

    @few
    @given(start_ns=times, later_ns=st.integers(0, 5 * MS), size_bytes=sizes, count=st.integers(1, 5))
    def check(start_ns, later_ns, size_bytes, count):
        first_ns = finish_ns(rate, start_ns, size_bytes, count)
        assert first_ns <= finish_ns(rate, start_ns + later_ns, size_bytes, count)

    check()


@rates
def test_the_order_of_questions_changes_no_answer(kind, holes, file):
    @few
    @given(asked=st.lists(st.integers(0, 3000 * MS), min_size=2, max_size=12))
    def check(asked):
        backwards = made(kind, holes, file)
        answers = {at_ns: backwards.segment(at_ns) for at_ns in sorted(asked, reverse=True)}
        mixed = made(kind, holes, file)
        for at_ns in asked:
            answer = mixed.segment(at_ns)
            assert answer.rate_bps == answers[at_ns].rate_bps
            assert answer.end_ns == answers[at_ns].end_ns > at_ns

    check()


@pytest.mark.parametrize(
    ("kind", "slower", "faster"),
    [
        ("constant", {"rate": "2 Mbit/s"}, {"rate": "3 Mbit/s"}),
        ("trace", {"scale": 0.6}, {"scale": 1.0}),
        ("rayleigh", {"bandwidth": "1 MHz"}, {"bandwidth": "3 MHz"}),
        ("rician", {"snr": "3 dB"}, {"snr": "9 dB"}),
    ],
)
def test_more_bandwidth_is_never_later_on_the_same_path(kind, slower, faster, file):
    slow, fast = (made(kind, ("random",), file, **changes) for changes in (slower, faster))
    for start_ns, size_bytes in itertools.product(range(0, 90 * MS, 7 * MS), (40, 1500, 9000)):
        assert finish_ns(fast, start_ns, size_bytes) <= finish_ns(slow, start_ns, size_bytes)


@pytest.mark.parametrize("kind", ["trace", "markov", "rayleigh", "rician"])
def test_draws_are_the_links_own(kind, file):
    base = segments(made(kind, (), file), 100 * MS)
    assert segments(made(kind, (), file), 100 * MS) == base
    assert segments(made(kind, (), file, entity=3), 100 * MS) != base
    assert segments(made(kind, (), file, seed=6), 100 * MS) != base


@rates
def test_both_resolutions_give_the_same_answer(kind, holes, file):
    sent = [Sent(place * 7 * MS, 100 + 1700 * (place % 5)) for place in range(40)]
    found = []
    for resolution in ("messages", "packets"):
        profile = profile_of(kind, holes, file, loss=0.05, queue="30 kB", resolution=resolution)
        found.append(exercise(lambda env, profile=profile: link_of(env, profile), sent))
    assert found[0] == found[1]
