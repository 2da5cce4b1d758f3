"""The benchmark runner keeps its file format and refuses rows that nobody could read."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.perf import run, yardstick

ROW = {"name": "events", "value": 500_000.0, "unit": "1/s", "yardstick_name": "bare", "yardstick_value": 2e6}


def write_bench(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"bench_{name}.py").write_text(f"def measure():\n    return {rows!r}\n")


def test_rows_of_all_files_are_written_in_order_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = {**ROW, "name": "alone", "value": 3, "yardstick_name": None, "yardstick_value": None}
    write_bench(tmp_path, "b", [ROW])
    write_bench(tmp_path, "a", [alone])
    run.main(tmp_path, tmp_path / "build/bench.json")
    assert json.loads((tmp_path / "build/bench.json").read_text()) == [alone, ROW]
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["benchmark", "value", "unit", "yardstick", "value", "ratio"]
    assert first.split() == ["alone", "3", "1/s"]
    assert second.split() == ["events", "500,000", "1/s", "bare", "2,000,000", "0.25"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": float("nan")}, "finite"),
        ({"value": "fast"}, "finite"),
        ({"value": True}, "finite"),
        ({"yardstick_name": None}, "both"),
        ({"yardstick_value": float("inf")}, "finite"),
        ({"note": "x"}, "keys"),
    ],
)
def test_unreadable_rows_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run.checked({**ROW, **change}, "bench_x.py")


@pytest.mark.parametrize("num_processes", [1, 10])
def test_yardstick_divides_all_timeouts_by_the_cpu_time(num_processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = itertools.count(step=2.0)  # every read is 2 s after the one before it
    monkeypatch.setattr(yardstick.time, "process_time", lambda: next(reads))
    assert yardstick.simpy_timeouts_per_cpu_s(num_processes, num_timeouts=1000) == 500.0
