"""Runs on compiled cohorts, as a user has them: chosen, refused, given up, and as a folder of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from testbed.core.errors import ScenarioError
from testbed.results import files
from testbed.run import prepare, run
from testbed.scenarios.load import build_scenario
from testbed.sim.cohort.engine import CohortError, CohortRun

COMPARED = (files.REQUESTS, files.DEVICES, files.LINKS, files.SERVER_TOTALS)


def data(**changes: Any) -> dict[str, Any]:
    """Thirty devices of two kinds that share two workers over lossy links; some ask twice."""
    return {
        "name": "fleet",
        "model": "llama-3.2-1b",
        "dtype": "float16",
        "seed": 5,
        "record": {"spans": False},
        "policy": {"kind": "static", "split": 4, "codec": "int8"},
        "fleet": [
            {"name": "boards", "device": "jetson-orin-nano", "count": 20, "link": "lte"},
            {"name": "phones", "device": "pixel-8", "count": 10, "link": "5g", "policy": "cloud-only"},
        ],
        "servers": [{"name": "cloud", "server": "l4", "count": 2, "max_batch": 8, "chunk_tokens": 64}],
        "workload": {
            "arrivals": {"kind": "uniform", "requests_per_device": 2, "until": "40 s"},
            "prompts": {"kind": "random", "length": {"law": "uniform", "low": 4, "high": 90}},
            "output_tokens": {"law": "uniform", "low": 1, "high": 20},
        },
        **changes,
    }


def run_by(engine: str, folder: Path, **changes: Any) -> dict[str, Any]:
    built = build_scenario(data(**changes, execution={"engine": engine}), base=Path())
    return dict(run(prepare(built), folder).summary)


def test_both_engines_leave_the_same_tables_and_the_same_figures(tmp_path: Path) -> None:
    mine, theirs = (run_by(engine, tmp_path / engine) for engine in ("cohorts", "requests"))
    for name in COMPARED:
        mine_table, theirs_table = (pq.read_table(tmp_path / engine / name) for engine in ("cohorts", "requests"))
        assert mine_table.equals(theirs_table), name
    assert mine["result_digest"] == theirs["result_digest"]
    own = {"event_digest", "engine", "wall_s"}
    assert {name: value for name, value in mine.items() if name not in own} == {
        name: value for name, value in theirs.items() if name not in own
    }
    assert (mine["engine"]["name"], theirs["engine"]["name"]) == ("cohorts", "requests")


def test_another_seed_has_another_digest(tmp_path: Path) -> None:
    first, again, other = (run_by("cohorts", tmp_path / str(n), seed=seed) for n, seed in enumerate((5, 5, 6)))
    assert first["result_digest"] == again["result_digest"] != other["result_digest"]


def test_small_runs_do_without() -> None:
    assert prepare(build_scenario(data(), base=Path())).engine.name == "requests"


def test_many_passes_are_run_by_cohorts_and_what_stands_against_them_is_named() -> None:
    many = {**data()["workload"], "output_tokens": {"law": "fixed", "value": 2000}}
    assert prepare(build_scenario(data(workload=many), base=Path())).engine.name == "cohorts"
    chosen = prepare(build_scenario(data(workload=many, record={"spans": True}), base=Path())).engine
    assert (chosen.name, list(chosen.why)) == ("requests", ["every span is recorded (record.spans)"])


def test_cohorts_asked_for_where_they_would_not_say_the_same_are_refused() -> None:
    with pytest.raises(
        ScenarioError, match=r"execution\.engine: cohorts can't run this .* exactly: router round-robin"
    ):
        prepare(build_scenario(data(router="round-robin", execution={"engine": "cohorts"}), base=Path()))


def test_what_cohorts_cannot_tell_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_by("requests", tmp_path / "requests")

    def give_up(self: CohortRun) -> None:
        raise CohortError("a token sent down was given up")

    monkeypatch.setattr(CohortRun, "run", give_up)
    summary = run_by("cohorts", tmp_path / "cohorts")
    assert summary["engine"] == {"name": "requests", "why": ["a token sent down was given up"]}
    assert summary["result_digest"] == whole["result_digest"]


def test_an_interrupted_run_keeps_what_had_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = CohortRun._advance

    def interrupted(self: CohortRun) -> bool:
        goes_on = whole(self)
        if not goes_on:
            raise KeyboardInterrupt
        return goes_on

    monkeypatch.setattr(CohortRun, "_advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_by("cohorts", tmp_path / "run")
    summary = json.loads((tmp_path / "run" / files.SUMMARY).read_text())
    assert (summary["complete"], summary["reason"]) == (False, "interrupted")
    assert pq.read_table(tmp_path / "run" / files.REQUESTS).num_rows == 60
