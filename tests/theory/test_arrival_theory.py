"""Arrival laws against closed forms. Seeds are fixed; ALPHA: how often a right generator would fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from testbed.core.events import RequestEnded
from testbed.core.registry import ARRIVALS
from testbed.scenarios.problems import validate
from testbed.workloads.intensity import poisson_counts
from testbed.workloads.members import Members
from tests.sim_runs import group, link, run_world, scenario, server, workload

ALPHA = 1e-4
S = 10**9
Z = stats.norm.ppf(1 - ALPHA / 2)


def law(**config):
    loaded = ARRIVALS.load(config["kind"])
    return loaded(validate(loaded.Config, config))


def members(count=1, seed=3):
    return Members.of("boards", count, seed)


def assert_poisson(count, mean):
    """A two-sided test of a single Poisson count."""
    low, high = stats.poisson.ppf([ALPHA / 2, 1 - ALPHA / 2], mean)
    assert low <= count <= high


def assert_density(instants_ns, integral, until_ns):
    """Instants of an inhomogeneous Poisson process, given their number, are independent with density rate / integral:
    their images under the normed integral of the rate are uniform (Kolmogorov and Smirnov)."""
    images = integral(np.asarray(instants_ns) / S) / integral(until_ns / S)
    assert stats.kstest(images, "uniform").pvalue > ALPHA


@pytest.mark.parametrize("mean", [1e-3, 0.4, 7.0, 300.0, 2e6])
def test_poisson_counts_are_the_quantiles_of_the_law(mean):
    u = np.array([0.0, 1e-9, 0.01, 0.3, 0.5, 0.9, 0.999999, 1 - 1e-9])
    counts = poisson_counts(np.full(len(u), mean), u)
    assert np.all(stats.poisson.cdf(counts, mean) >= u)
    assert np.all((counts == 0) | (stats.poisson.cdf(counts - 1, mean) < np.maximum(u, 2.0**-53)))


@pytest.mark.parametrize("whose", ["rate_per_device", "rate"])
def test_a_poisson_window_has_poisson_counts_and_uniform_instants(whose):
    poisson = law(kind="poisson", until="200 s", **{whose: "2 /s"})
    devices = members(300)
    found = poisson.openings(devices)
    drawers = 300 if whose == "rate_per_device" else 1
    assert poisson.expected_count(devices) == 400 * drawers
    assert_poisson(len(found), 400 * drawers)
    assert stats.kstest(found.arrival_ns / (200 * S), "uniform").pvalue > ALPHA
    counts = np.bincount(found.place, minlength=300)  # thinned by device, they are Poisson all the same
    dispersion = counts.var(ddof=1) / counts.mean() * 299
    assert ALPHA / 2 < stats.chi2.cdf(dispersion, 299) < 1 - ALPHA / 2


def test_a_groups_poisson_gaps_are_exponential():
    found = law(kind="poisson", rate="5 /s", requests=20_000).openings(members(40))
    assert stats.kstest(np.diff(found.arrival_ns) / S, stats.expon(scale=0.2).cdf).pvalue > ALPHA
    assert stats.chisquare(np.bincount(found.place, minlength=40)).pvalue > ALPHA


def test_uniform_arrivals_are_so_many_anywhere_in_the_window():
    found = law(kind="uniform", requests_per_device=4, start="10 s", until="1 h").openings(members(5000))
    assert set(np.bincount(found.place)) == {4}
    assert stats.kstest((found.arrival_ns - 10 * S) / (3590 * S), "uniform").pvalue > ALPHA


class TestMmpp:
    FAST, SLOW, STAY_FAST, STAY_SLOW = 20.0, 1.0, 3.0, 12.0

    def two_states(self, until, **changes):
        states = [{"rate": f"{self.FAST} /s", "mean": f"{self.STAY_FAST} s"}]
        states.append({"rate": f"{self.SLOW} /s", "mean": f"{self.STAY_SLOW} s"})
        return law(kind="mmpp", states=states, until=until, **changes)

    def test_mean_and_dispersion_of_counts(self):
        # Fischer, Meier-Hellstern (1993): of a stationary two-state process over t, the mean is t (l1 r2 + l2 r1) / r
        # and the index of dispersion 1 + 2 (l1 - l2)^2 r1 r2 / (r^2 (l1 r2 + l2 r1)) (1 - (1 - exp(-r t)) / (r t)),
        # with rates r1, r2 of leaving the states and r = r1 + r2.
        t, num_devices = 30.0, 4000
        r1, r2 = 1 / self.STAY_FAST, 1 / self.STAY_SLOW
        r, weighted = r1 + r2, self.FAST * r2 + self.SLOW * r1
        fade = 1 - (1 - math.exp(-r * t)) / (r * t)
        index = 1 + 2 * (self.FAST - self.SLOW) ** 2 * r1 * r2 / (r**2 * weighted) * fade
        mmpp, devices = self.two_states(f"{t} s"), members(num_devices)
        assert mmpp.mean_rate_per_s == pytest.approx(weighted / r, rel=1e-12)
        counts = np.bincount(mmpp.openings(devices).place, minlength=num_devices).astype(float)
        mean = weighted / r * t
        assert abs(counts.mean() - mean) < Z * math.sqrt(index * mean / num_devices)
        assert mmpp.expected_count(devices) == pytest.approx(mean * num_devices, rel=1e-12)
        squares = (counts - mean) ** 2  # their mean is the variance, whatever the law
        assert abs(squares.mean() / mean - index) < Z * squares.std() / mean / math.sqrt(num_devices)

    def test_with_equal_rates_it_is_poisson(self):
        states = [{"rate": "4 /s", "mean": "1 s"}, {"rate": "4 /s", "mean": "7 s"}, {"rate": "4 /s", "mean": "2 s"}]
        found = law(kind="mmpp", states=states, per="group", until="4000 s").openings(members(3))
        assert_poisson(len(found), 16_000)
        assert stats.kstest(np.diff(found.arrival_ns) / S, stats.expon(scale=0.25).cdf).pvalue > ALPHA

    def test_time_shares_follow_transitions_and_stays(self):
        states = [{"rate": "1 /s", "mean": "1 s"}, {"rate": 0, "mean": "2 s"}, {"rate": "9 /s", "mean": "5 s"}]
        matrix = [[0, 0.5, 0.5], [1, 0, 0], [0.25, 0.75, 0]]
        mmpp = law(kind="mmpp", states=states, transitions=matrix, until="1 s")
        generator = np.array([[-1, 0.5, 0.5], [0.5, -0.5, 0], [0.05, 0.15, -0.2]])  # rows over the mean stays
        assert mmpp.shares @ generator == pytest.approx(np.zeros(3), abs=1e-12)
        assert mmpp.shares.sum() == pytest.approx(1)


class TestDiurnal:
    def integral(self, rate, swing, first, day):
        """Of the rate from the start, in seconds, numerically."""

        def until(times_s):
            return np.array([
                integrate.quad(lambda t: rate * (1 + swing * math.cos(2 * math.pi * (first + t) / day)), 0, end)[0]
                for end in np.atleast_1d(times_s)
            ])  # fmt: skip

        return until

    def test_a_sinusoid(self):
        config = {"swing": 0.9, "peak": "20 h", "begins": "7 h", "until": "31 h"}
        diurnal = law(kind="diurnal", rate="200 /h", **config)
        integral = self.integral(200 / 3600, 0.9, -13 * 3600, 86_400)
        found = diurnal.openings(members(10))
        assert diurnal.expected_count(members(10)) == pytest.approx(integral(31 * 3600)[0], rel=1e-9)
        assert_poisson(len(found), integral(31 * 3600)[0])
        assert_density(found.arrival_ns[::4], integral, 31 * 3600 * S)

    def test_hours(self):
        weights = np.array([*range(12), *[0] * 6, *[20] * 6], dtype=float)
        diurnal = law(kind="diurnal", rate_per_device="30 /h", hours=weights.tolist(), begins="90 min", until="40 h")
        found, devices = diurnal.openings(members(50)), members(50)
        hours = (90 * 60 * S + found.arrival_ns) // (3600 * S) % 24
        covered = np.array([2 - (hour == 0) - (hour == 1) / 2 for hour in range(24)])  # 40 h from 1:30 on
        covered[17] = 1.5
        covered[18:] = 1
        means = 50 * 30 * weights / weights.mean() * covered
        assert diurnal.expected_count(devices) == pytest.approx(means.sum(), rel=1e-12)
        for hour, count in enumerate(np.bincount(hours, minlength=24)):
            assert_poisson(count, means[hour])

    def test_a_day_may_be_short(self):
        found = law(kind="diurnal", rate="100 /s", swing=1.0, day="10 s", peak="0 s", until="100 s").openings(members())
        phase = np.cos(2 * np.pi * found.arrival_ns / (10 * S))
        assert abs(phase.mean() - 0.5) < Z * phase.std() / math.sqrt(len(phase))  # E cos = swing / 2


@pytest.mark.parametrize("until", ["100 s", "150 s", "290 s", "2000 s"])
def test_a_flash_crowd(until):
    base, peak, start, rise, hold, decay = 3.0, 12.0, 60.0, 50.0, 100.0, 80.0
    crowd = law(
        kind="flash-crowd", rate=f"{base} /s", peak=peak, start=f"{start} s",
        rise=f"{rise} s", hold=f"{hold} s", decay=f"{decay} s", until=until,
    )  # fmt: skip

    def rate(t):
        since = t - start
        if since < 0:
            return base
        above = since / rise if since < rise else 1 if since < rise + hold else math.exp(-(since - rise - hold) / decay)
        return base * (1 + (peak - 1) * above)

    grid = np.linspace(0, float(until[:-2]), 4001)
    sums = integrate.cumulative_trapezoid([rate(t) for t in grid], grid, initial=0)
    found = crowd.openings(members(20))
    assert crowd.expected_count(members(20)) == pytest.approx(sums[-1], rel=1e-4)
    assert_poisson(len(found), sums[-1])
    assert_density(found.arrival_ns, lambda times: np.interp(times, grid, sums), grid[-1] * S)


def test_a_crowd_that_comes_at_once_has_no_rise():
    crowd = law(
        kind="flash-crowd", rate="1 /s", peak=30, start="100 s", rise="0 s", hold="10 s", decay="1 ms", until="200 s"
    )
    found = crowd.openings(members()).arrival_ns
    assert_poisson(((found >= 100 * S) & (found < 110 * S)).sum(), 300)
    assert_poisson((found < 100 * S).sum(), 100)


def test_a_closed_loops_throughput():
    # N users who each think Z on average and are answered in R: X = N / (R + Z), whatever the laws
    # (Lazowska et al. 1984, the response time law). R is the same for all where nobody waits for anybody.
    num_users, num_requests, think_s = 6, 120, 0.05
    asks = workload(
        arrivals={
            "kind": "closed",
            "requests_per_device": num_requests,
            "think": {"law": "exponential", "mean": f"{think_s} s"},
        }
    )
    fast = {"server": server(memory_bandwidth="900 GB/s", compute="900 TFLOP/s"), "max_batch": 64}
    ideal = link(rate_up="100 Gbit/s", rate_down="100 Gbit/s")
    fleet = [group(count=num_users, link=ideal)]
    _, events = run_world(scenario(fleet=fleet, servers=[fast], workload=asks, seed=8))
    ended = [event.time_ns for event in events if isinstance(event, RequestEnded)]
    arrived = {event.request: event.time_ns for event in events if type(event).__name__ == "RequestArrived"}
    responses = [event.time_ns - arrived[event.request] for event in events if isinstance(event, RequestEnded)]
    response_s = np.mean(responses) / S
    assert len(ended) == num_users * num_requests
    half = sorted(ended)[len(ended) // 2]  # users finish at different times: count while all are at it
    throughput = sum(time_ns <= half for time_ns in ended) / (half / S)
    spread = think_s / (response_s + think_s) / math.sqrt(len(ended) / 2)  # of a renewal process's rate
    assert throughput == pytest.approx(num_users / (response_s + think_s), rel=Z * spread)
