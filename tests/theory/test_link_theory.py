"""The link against queueing and probability theory. Seeds are fixed; ALPHA: how often a right link would fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from testbed.network_models.exercise import Sent, exercise
from testbed.network_models.jitter import Jitter, jitter_law, jitter_table
from testbed.network_models.origin import Origin
from testbed.network_models.transfer import Direction
from testbed.scenarios.profiles import JitterConfig, LinkProfile
from tests.links import arq, link_of

ALPHA = 1e-3
S = 1_000_000_000


def run(messages, *, seed=1, **changes):
    fields = {
        "name": "theory",
        "rate_up": "8 Mbit/s",
        "rate_down": "8 Mbit/s",
        "propagation_delay": 0,
        "queue": "1 TB",
        **changes,
    }
    profile = LinkProfile(**fields)
    return exercise(
        lambda env: link_of(env, profile, seed=seed),
        [Sent(int(time_ns), int(payload_bytes)) for time_ns, payload_bytes in messages],
    )


@settings(deadline=None, max_examples=200)
@given(
    gaps=st.lists(st.integers(0, 4_000_000), min_size=1, max_size=80),
    sizes=st.lists(st.integers(0, 6000), min_size=80, max_size=80),
    rate_bps=st.integers(1000, 10**9),
)
def test_waits_follow_lindleys_recursion_exactly(gaps, sizes, rate_bps):
    # end_i = S_i + max over j <= i of (arrival_j - S_{j-1}), with S the running sum of service times.
    arrivals = np.cumsum(gaps)
    sizes = np.asarray(sizes[: len(gaps)])
    full = np.maximum(-(-sizes // 1460) - 1, 0)
    rest = sizes - full * 1460 + 40
    service = full * -(-1500 * 8 * S // rate_bps) + -(-rest * 8 * S // rate_bps)
    total = np.cumsum(service)
    ends = total + np.maximum.accumulate(arrivals - (total - service))
    transfers, account = run(zip(arrivals, sizes, strict=True), rate_up=f"{rate_bps} bit/s")
    assert [item.ended_ns for item in transfers] == ends.tolist()
    assert [item.queue_ns for item in transfers] == (ends - service - arrivals).tolist()
    assert account.busy_ns == total[-1]


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_mean_wait_of_an_m_d_1_queue(load):
    # Pollaczek and Khinchine: mean wait = load * service / (2 (1 - load)).
    num_batches, batch, warm_up, service_ns = 40, 1500, 1500, 1_500_000
    generator = np.random.default_rng(20)
    gaps = generator.exponential(service_ns / load, warm_up + num_batches * batch)
    transfers, _ = run((time_ns, 1460) for time_ns in np.cumsum(gaps))
    waits = np.asarray([item.queue_ns for item in transfers[warm_up:]], dtype=float)
    means = waits.reshape(num_batches, batch).mean(axis=1)
    half_width = stats.t.ppf(1 - ALPHA / 2, num_batches - 1) * means.std(ddof=1) / math.sqrt(num_batches)
    expected = load * service_ns / (2 * (1 - load))
    assert abs(means.mean() - expected) < half_width
    assert half_width < 0.15 * expected  # the interval says something


@pytest.mark.parametrize(("num_packets", "p_loss"), [(1, 0.3), (8, 0.2), (60, 0.05)])
def test_rounds_are_the_largest_of_geometric_counts(num_packets, p_loss):
    # Selective repeat: a packet needs a geometric number of rounds, a message the largest: P(R <= r) = (1 - p^r)^n.
    num_messages, timeout_ns = 5000, S
    transfers, _ = run(
        ((index * 100 * S, num_packets * 1460) for index in range(num_messages)),
        loss=p_loss,
        transport=arq(timeout="1 s", max_retransmissions=1000),
    )
    rounds = np.asarray([1 + item.retransmit_ns // timeout_ns for item in transfers])
    most = 1
    while num_messages * (1 - (1 - p_loss ** (most + 1)) ** num_packets) >= 10:
        most += 1  # the last cell holds the tail, at least 10 expected
    cdf = [(1 - p_loss**r) ** num_packets for r in range(most + 1)] + [1.0]
    observed = np.bincount(np.minimum(rounds, most + 1), minlength=most + 2)[1:]
    assert stats.chisquare(observed, num_messages * np.diff(cdf)).pvalue > ALPHA
    repeats = np.asarray([item.num_retransmissions for item in transfers])
    expected, std = num_packets * p_loss / (1 - p_loss), math.sqrt(num_packets * p_loss) / (1 - p_loss)
    assert abs(repeats.mean() - expected) < stats.norm.ppf(1 - ALPHA / 2) * std / math.sqrt(num_messages)


def test_messages_are_given_up_with_probability_of_n_losses_in_a_row():
    num_messages, p_loss, rounds = 20_000, 0.4, 3
    _, account = run(
        ((index * 100 * S, 100) for index in range(num_messages)),
        loss=p_loss,
        transport=arq(max_retransmissions=rounds - 1),
    )
    assert stats.binomtest(account.lost, num_messages, p_loss**rounds).pvalue > ALPHA


JITTERS = [
    # law, mean ms, std ms, how far the table's mean and std may lie from the law's
    ("constant", 4, 0, 0, 0),
    ("uniform", 4, 2, 1e-6, 1e-6),
    ("exponential", 4, None, 3e-5, 2e-4),
    ("normal", 20, 5, 1e-4, 2e-3),
    ("lognormal", 4, 2, 1e-5, 5e-4),
    ("gamma", 4, 2, 1e-5, 2e-4),
    ("pareto", 4, 2, 1e-4, 2e-3),
]


def jitter_config(law, mean_ms, std_ms):
    return JitterConfig(law=law, mean=f"{mean_ms} ms", **({"std": f"{std_ms} ms"} if std_ms else {}))


@pytest.mark.parametrize(("law", "mean_ms", "std_ms", "mean_error", "std_error"), JITTERS)
def test_a_jitter_table_has_its_laws_moments(law, mean_ms, std_ms, mean_error, std_error):
    config = jitter_config(law, mean_ms, std_ms)
    table, exact = jitter_table(config), jitter_law(config)
    assert (exact.mean, exact.std) == pytest.approx((mean_ms * 1e6, (mean_ms if std_ms is None else std_ms) * 1e6))
    assert table.mean == pytest.approx(exact.mean, rel=mean_error)
    assert math.sqrt(table.variance) == pytest.approx(exact.std, rel=std_error)


@pytest.mark.parametrize(
    "config", [jitter_config(*row[:3]) for row in JITTERS[1:]], ids=[row[0] for row in JITTERS[1:]]
)
def test_drawn_jitter_has_the_tables_moments(config):
    num_draws, z = 20_000, stats.norm.ppf(1 - ALPHA / 2)
    jitter, table = Jitter(config, Origin(seed=3, direction=Direction.UP, entity=1)), jitter_table(config)
    draws = np.asarray([jitter.delay_ns(message, 0) for message in range(num_draws)], dtype=float)
    assert abs(draws.mean() - table.mean) < z * math.sqrt(table.variance / num_draws)
    fourth = np.mean((draws - table.mean) ** 4)
    spread = np.mean((draws - table.mean) ** 2)
    assert abs(spread - table.variance) < z * math.sqrt((fourth - table.variance**2) / num_draws)


def test_an_overloaded_queue_fills_to_its_limit_and_passes_its_rate():
    # Twice the rate for 60 s into 64 packets of room: half is dropped for good, the link is never idle.
    messages = [(index * 750_000, 1460) for index in range(80_000)]
    transfers, account = run(messages, queue="96000 B", transport=arq(max_retransmissions=0))
    assert account.peak_backlog_bytes == 96_000
    assert max(item.queue_ns for item in transfers) == 63 * 1_500_000
    assert account.delivered == 40_000 + 64 - 1
    assert account.busy_ns == account.delivered * 1_500_000
