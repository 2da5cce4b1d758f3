"""Losses from a file and by signal-to-noise ratio, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from testbed.core.errors import ScenarioError
from testbed.core.registry import LOSSES
from testbed.network_models.build import resolution
from testbed.network_models.channel import build_channel
from testbed.network_models.exercise import Sent, exercise
from testbed.network_models.origin import Origin
from testbed.network_models.transfer import Direction
from testbed.scenarios.problems import validate
from testbed.scenarios.profiles import LinkProfile
from tests.links import link_of

ALPHA = 1e-4  # how often a right model would fail a statistical test, were its seed not fixed
ORIGIN = Origin(seed=5, direction=Direction.UP, entity=3)


def profile_of(**changes):
    fields = {"rate_up": "1 Mbit/s", "rate_down": "1 Mbit/s", "propagation_delay": "1 ms", **changes}
    return validate(LinkProfile, {"name": "any", **fields})


def loss_of(**config):
    return build_channel(profile_of(loss=config), ORIGIN).loss


def written(tmp_path, text):
    file = tmp_path / "loss.txt"
    file.write_text(text)
    return str(file)


def test_a_trace_is_followed_and_wraps(tmp_path):
    file = written(tmp_path, "# recorded\n0010\n\n3 x 0  # a gap\n2x1\n")
    fates = [0, 0, 1, 0, 0, 0, 0, 1, 1] * 300
    loss = loss_of(kind="trace", file=file)
    assert loss.lost(range(1000), 0) == [place for place in range(1000) if fates[place]]
    assert [loss.is_lost(7, 1, 0) for _ in range(1000)] == [bool(fate) for fate in fates[1000:2000]]


def test_a_random_start_is_each_links_own_and_uniform(tmp_path):
    file = written(tmp_path, "1\n9 x 0\n")
    profile = profile_of(loss={"kind": "trace", "file": file, "start": "random"})
    starts = []
    for entity in range(1000):
        loss = build_channel(profile, Origin(seed=1, direction=Direction.UP, entity=entity)).loss
        starts.append(-loss.lost(range(10), 0)[0] % 10)
    assert stats.chisquare(np.bincount(starts, minlength=10)).pvalue > ALPHA


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0010\n01201\n", "line 2: neither digits 0 and 1 nor a run of them (got '01201')"),
        ("5 x 2", "line 1: neither digits 0 and 1 nor a run of them (got '5 x 2')"),
        ("0\n\n0 x 1", "line 3: a run of no transmission (got '0 x 1')"),
        ("# nothing\n", "the loss trace is empty"),
    ],
)
def test_a_malformed_trace_is_refused_with_file_line_and_content(tmp_path, text, expected):
    file = written(tmp_path, text)
    with pytest.raises(ScenarioError) as caught:
        loss_of(kind="trace", file=file)
    assert str(caught.value).startswith(f"{file}: loss: {expected}")


def test_a_missing_trace_is_refused(tmp_path):
    with pytest.raises(ScenarioError, match="no such file"):
        loss_of(kind="trace", file=str(tmp_path / "none.txt"))


class Fading:
    """A rate whose signal-to-noise ratio climbs a decibel a second."""

    def snr(self, time_ns):
        return 10 ** (time_ns / 1e10)


def snr_loss(**config):
    kind = LOSSES.load("snr")
    return kind(validate(kind.Config, {"kind": "snr", **config}), ORIGIN, Fading())


CURVES = [
    ({"midpoint_db": 6.0, "slope_db": 0.5}, lambda db: 1 / (1 + math.exp((db - 6) / 0.5))),
    ({"table": [[2, 1], [4, 0.5], [8, 0.01]]}, lambda db: float(np.interp(db, [2, 4, 8], [1, 0.5, 0.01]))),
]


@pytest.mark.parametrize(("config", "curve"), CURVES)
def test_packets_are_lost_as_often_as_their_ratio_says(config, curve):
    loss, num_packets = snr_loss(**config), 4000
    for db in (0, 3.5, 6, 7.25, 20):
        lost = sum(loss.is_lost(packet, 0, round(db * 1e9)) for packet in range(num_packets))
        low, high = stats.binom(num_packets, curve(db)).interval(1 - ALPHA)
        assert low <= lost <= high


def test_a_transmissions_fate_depends_on_its_key_and_its_instant_alone():
    ask = [(packet, attempt, 6 * 10**9) for packet in range(50) for attempt in range(4)]
    loss = snr_loss(midpoint_db=6.0, slope_db=1.0)
    assert [loss.is_lost(*key) for key in ask] == [loss.is_lost(*key) for key in reversed(ask)][::-1]
    assert len({loss.is_lost(*key) for key in ask}) == 2


def test_a_fading_link_loses_what_its_curve_says_over_the_fading():
    curve = {"midpoint_db": 8.0, "slope_db": 1.0}
    fading = {"kind": "rayleigh", "bandwidth": "10 MHz", "snr": "15 dB", "coherence_time": "5 ms"}
    profile = profile_of(rate_up=fading, rate_down=fading, loss={"kind": "snr", **curve}, transport="datagram")
    messages = [Sent(5_000_000 * index, 100) for index in range(6000)]  # one a block, so that they are independent
    _, account = exercise(lambda env: link_of(env, profile, entity=3, seed=5), messages)
    mean_ratio = 10**1.5
    expected, _ = integrate.quad(
        lambda x: math.exp(-x) / (1 + math.exp(10 * math.log10(mean_ratio * x) - 8)), 1e-12, 40, points=[0.2, 1]
    )
    low, high = stats.binom(len(messages), expected).interval(1 - ALPHA)
    assert resolution(profile) == "packets"
    assert low <= account.lost_packets <= high


def test_a_loss_by_ratio_needs_a_rate_that_has_one():
    with pytest.raises(ScenarioError) as caught:
        loss_of(kind="snr", midpoint_db=6.0, slope_db=0.5)
    assert str(caught.value).startswith("loss.kind: a loss by SNR without a fading rate (got 'snr')")


REFUSED = [
    ({"kind": "gilbert-elliott", "p": 1.5, "r": 0.2}, "loss.p: ratio too large (got 1.5); allowed: at most 1"),
    ({"kind": "gilbert-elliott", "p": -0.1, "r": 0.2}, "loss.p: ratio too small (got -0.1); allowed: at least 0"),
    ({"kind": "gilbert-elliott", "p": 0.1, "r": 0}, "loss.r: no way back to good (got 0); allowed: more than 0"),
    (
        {"kind": "gilbert-elliott", "p": 0.1},
        "loss: the law is given by p; allowed: p and r; or mean_loss and mean_burst",
    ),
    (
        {"kind": "gilbert-elliott", "p": 0.1, "r": 0.1, "mean_loss": 0.2},
        "loss: the law is given by p and r and mean_loss; allowed: p and r; or mean_loss and mean_burst",
    ),
    (
        {"kind": "gilbert-elliott", "mean_loss": 0.8, "mean_burst": 3},
        "loss.mean_loss: no chain has this mean loss and burst length (got 0.8); "
        "allowed: 0 (loss_good) to 0.75 with a mean_burst of 3",
    ),
    (
        {"kind": "gilbert-elliott", "mean_loss": 0.01, "mean_burst": 0.5},
        "loss.mean_burst: too small (got 0.5); allowed: at least 1.0",
    ),
    (
        {"kind": "gilbert-elliott", "p": 0.1, "r": 0.1, "loss_good": 0.5, "loss_bad": 0.1},
        "loss.loss_good: good loses more than bad (got 0.5); allowed: at most loss_bad of 0.1",
    ),
    (
        {"kind": "snr", "midpoint_db": 3.0},
        "loss: one curve of packet error rates is expected; allowed: midpoint_db and slope_db; or table",
    ),
    (
        {"kind": "snr", "table": [[3, 0.5], [2, 0.1]]},
        "loss.table[1]: a curve's ratios ascend and its error rates do not (got '[2, 0.1] after [3, 0.5]')",
    ),
    ({"kind": "bernoulli", "p": 1}, "loss.p: ratio too large (got 1); allowed: at most 0.999"),
]


@pytest.mark.parametrize(("loss", "expected"), REFUSED)
def test_losses_that_can_not_be_are_refused(loss, expected):
    with pytest.raises(ScenarioError) as caught:
        profile_of(loss=loss)
    assert str(caught.value) == expected
