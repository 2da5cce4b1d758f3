"""What a run of changing devices leaves: columns, blocks of the summary, lines and tables of the reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from testbed.results.device_state import ENERGY_STATES
from tests.unit.tiny_scenario import Called, call, tiny, write

STATE = {
    "battery": {"initial": "1 %", "cutoff": "0.5 %"},
    "heat": {"ambient": "30 degC"},
    "churn": {"kind": "schedule", "steps": [{"at": 0, "value": "present"}, {"at": "2 s", "value": "left"}]},
}
FIGURES = {"battery_capacity": "1 Wh", "thermal_resistance": "10 K/W", "heat_capacity": "30 J/K"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Called]:
    """Two devices on the mains that nothing happens to, and two that change."""
    place = tmp_path_factory.mktemp("run")
    plain = tiny()["fleet"][0]
    changing = {**plain, "name": "phones", "device": {"use": "raspberry-pi-5", **FIGURES}, **STATE}
    write(place / "case.yaml", tiny(("fleet", [plain, changing])))
    called = call("run", str(place / "case.yaml"), "--out", str(place / "run"))
    assert called.code == 0, called
    return place / "run", called


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())  # type: ignore[no-any-return]


def test_the_columns_tell_of_each_device_and_add_up(done: tuple[Path, Called]) -> None:
    rows = pq.read_table(str(done[0] / "devices.parquet")).to_pylist()
    plain, changing = rows[:2], rows[2:]
    for row in rows:
        assert sum(row[state] or 0.0 for state in ENERGY_STATES) == pytest.approx(row["energy_j"])
    assert all(row["battery_end_j"] is None and row["off_ns"] is None for row in plain)
    for row in changing:
        assert row["battery_capacity_j"] == 3600
        assert row["battery_start_j"] == pytest.approx(36)
        assert row["battery_start_j"] - row["battery_end_j"] == pytest.approx(row["energy_j"])
        assert row["battery_end_j"] >= 18 - 1e-6
        assert row["max_temperature_c"] > 30
        assert row["departures"] == 1
    summary = summary_of(done[0])
    outcomes = ("completed", "battery", "churn")
    for outcome in outcomes:
        assert summary[outcome] == sum(row[outcome] for row in rows)
    assert sum(summary[outcome] for outcome in outcomes) == 8
    assert summary["churn"] + summary["battery"] > 0


def test_the_summary_says_it_of_all_and_of_each_group(done: tuple[Path, Called]) -> None:
    summary, rows = summary_of(done[0]), pq.read_table(str(done[0] / "devices.parquet")).to_pylist()[2:]
    state = summary["device_state"]
    assert summary["by_group"]["pis"]["device_state"] is None
    assert summary["by_group"]["phones"]["device_state"] == state
    assert state["devices"] == 2
    assert state["off_share"] == pytest.approx(sum(row["off_ns"] for row in rows) / 2e9 / summary["duration_s"])
    levels = [row["battery_end_j"] / 3600 for row in rows]
    assert state["battery"]["mean_level"] == pytest.approx(sum(levels) / 2)
    assert state["battery"]["lowest_level"] == pytest.approx(min(levels))
    assert state["heat"]["highest_c"] == max(row["max_temperature_c"] for row in rows)
    assert sum(summary["device_energy_j"].values()) == pytest.approx(sum(summary["energy_j"]["devices"].values()))


def test_console_and_page_show_it(done: tuple[Path, Called]) -> None:
    folder, called = done
    assert "of the time off or away" in called.out
    assert "left in the mean" in called.out
    assert "°C at most" in called.out
    page = (folder / "report.html").read_text()
    assert "Battery, heat and presence" in page
    assert "device away" in page or "battery empty" in page
