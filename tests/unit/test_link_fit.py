"""Chains fitted to traces: a chain's own path gives the chain back, and files are read as their formats say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from testbed.core.errors import ModelError
from testbed.scenarios.catalogue import entries
from testbed.scenarios.yaml_file import read_yaml
from testbed.studies.link_fit import (
    NUM_STATES,
    SOURCES,
    Chain,
    fit_chain,
    fit_error,
    halves,
    rate_piece,
    read_traces,
    simulate_slots,
    slot_rates,
    told,
)

DATA = Path(__file__).parents[2] / "../shared/data"
needs_data = pytest.mark.skipif(
    not (DATA / "net-mahimahi").is_dir(), reason="the measured traces are not at ../shared/data"
)

TRUE = Chain(
    rates=np.array([0.5, 4.0, 20.0]),
    sojourns=np.array([4.0, 8.0, 6.0]),
    moves=np.array([[0.0, 0.7, 0.3], [0.5, 0.0, 0.5], [0.2, 0.8, 0.0]]),
)


def test_a_chains_own_path_gives_its_law_back():
    path = simulate_slots(TRUE, 40_000, seed=5)
    found = fit_chain([path], 6)
    assert np.all(np.diff(found.rates) > 0)
    assert found.moves.sum(axis=1) == pytest.approx(np.ones(found.rates.size))
    assert not np.diag(found.moves).any()
    error = fit_error(found, [simulate_slots(TRUE, 40_000, seed=6)])
    assert abs(error.mean) < 0.03
    assert error.quantiles < 0.12  # a rate of few values jumps from one quantile to the next
    assert abs(error.correlation) < 0.05


def test_a_simulated_chain_stays_as_long_as_it_says():
    # Stationary shares follow from the embedded chain's, weighted by how long each visit lasts.
    values, vectors = np.linalg.eig(TRUE.moves.T)
    embedded = np.real(vectors[:, np.argmin(np.abs(values - 1))])
    share = embedded * TRUE.sojourns / (embedded @ TRUE.sojourns)
    path = simulate_slots(TRUE, 200_000, seed=7)
    num_visits = 200_000 * 0.5 / (share @ TRUE.sojourns)
    assert path.mean() == pytest.approx(share @ TRUE.rates, rel=6 / np.sqrt(num_visits))


def test_opportunities_become_rates(tmp_path):
    # 1,500 bytes at 0.1, 0.2 and 0.7 s, and at 1.2 s, which belongs to a slot that is not whole.
    (tmp_path / "a.up").write_text("100\n200\n700\n1200\n")
    assert slot_rates(tmp_path / "a.up") == pytest.approx([2 * 0.012 / 0.5, 0.012 / 0.5])


def test_seconds_and_rates_become_slots(tmp_path):
    # A line's rate holds for the time before it: 2 Mbit/s for 1 s, then 6 for 1 s.
    (tmp_path / "trace").write_text("10 9\n11 2\n12 6\n")
    assert slot_rates(tmp_path / "trace") == pytest.approx([2, 2, 6])


def test_one_trace_is_cut_and_many_are_dealt():
    first, second = halves([np.arange(200.0)])
    assert [part[0] for part in first] == [0, 80, 160]
    assert [part[0] for part in second] == [40, 120]
    assert [part.size for part in first + second] == [40] * 5
    traces = [np.ones(3) * index for index in range(5)]
    first, second = halves(traces)
    assert [part[0] for part in first] == [0, 2, 4]
    assert [part[0] for part in second] == [1, 3]


def test_what_is_no_trace_is_refused(tmp_path):
    (tmp_path / "a.up").write_text("1\ntwo\n")
    with pytest.raises(ModelError, match=r"a\.up: not a trace"):
        slot_rates(tmp_path / "a.up")
    with pytest.raises(ModelError, match="no trace called"):
        read_traces(tmp_path, "*.down")


@needs_data
@pytest.mark.parametrize(("link", "key"), SOURCES)
def test_the_catalogue_holds_the_fit_and_its_error(link, key):
    series = read_traces(DATA, SOURCES[link, key])
    entry = read_yaml(entries("link")[link])[key]
    assert entry["value"] == rate_piece(fit_chain(series, NUM_STATES))
    fitted, checked = halves(series)
    assert told(fit_error(fit_chain(fitted, NUM_STATES), checked)) in entry["source"]
