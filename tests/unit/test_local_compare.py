"""Errors of a modelled run beside an emulated one."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from testbed.core.errors import ScenarioError
from testbed.studies.local.compare import Error, compared, figures, over_repeats, spread, write_table
from testbed.studies.local.plan import Timing

MS = 1_000_000


def timing(request: int, arrival_ms: int, *tokens_ms: int) -> Timing:
    return Timing(request=request, arrival_ns=arrival_ms * MS, tokens_ns=tuple(time * MS for time in tokens_ms))


def test_figures_are_those_of_the_definitions() -> None:
    found = figures([timing(0, 10, 30, 40, 60), timing(1, 20, 60)])
    assert found["ttft", "mean", "s"] == pytest.approx(0.030)
    assert found["ttft", "p50", "s"] == pytest.approx(0.030)
    assert found["tpot", "mean", "s"] == pytest.approx(0.015)  # the request of one token has none
    assert found["e2e", "p95", "s"] == pytest.approx(0.0495)
    assert found["throughput", "all", "tokens/s"] == pytest.approx(4 / 0.050)


def test_a_model_that_is_slower_by_a_fifth_has_that_error() -> None:
    real = [timing(0, 0, 10, 20), timing(1, 0, 20, 40)]
    told = [timing(0, 0, 12, 24), timing(1, 0, 24, 48)]
    errors = compared("point", 0, real, told)
    assert len(errors) == 10
    for item in errors:
        assert item.error == pytest.approx(-1 / 6 if item.metric == "throughput" else 0.2)
    assert spread(errors).median == pytest.approx(0.2)
    assert spread(errors).largest == pytest.approx(0.2)


def test_runs_of_other_requests_are_not_compared() -> None:
    with pytest.raises(ScenarioError, match="same requests"):
        compared("point", 0, [timing(0, 0, 1)], [timing(0, 0, 1, 2)])


def test_repeats_count_by_their_median_and_the_table_has_them_all(tmp_path: Path) -> None:
    errors = [
        Error(point="p", repeat=n, metric="ttft", statistic="mean", unit="s", real=real, modelled=1.0)
        for n, real in enumerate((0.8, 1.0, 4.0))
    ]
    (one,) = over_repeats(errors)
    assert one.error == 0.0
    write_table(errors, tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["error"] for row in rows] == ["0.2500", "0.0000", "-0.7500"]
    with pytest.raises(ScenarioError, match="can't be written"):
        write_table(errors, tmp_path / "no" / "table.csv")
