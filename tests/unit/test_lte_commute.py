"""The shipped drive: messages meet the gaps of the measured trace, and the report shows when."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from testbed.results import files
from tests.unit.tiny_scenario import call

TRACE = Path(__file__).parents[2] / "../shared/data/net-mahimahi/traces/ATT-LTE-driving-2016.up"
pytestmark = pytest.mark.skipif(not TRACE.is_file(), reason="the measured traces are not at ../shared/data")

# The same drive without computing: random prompts of the same model's shape.
MODELLED = ("-o", "fleet.0.compute=modelled", "-o", "workload.prompts={kind: random, length: {law: fixed, value: 30}}")


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drive") / "run"
    called = call("run", "lte-commute", *MODELLED, "--out", folder)
    assert (called.code, called.error) == (0, None)
    return folder


def test_nothing_arrives_in_the_traces_longest_gap(drive):
    opportunities_s = np.loadtxt(TRACE) / 1000
    gaps = np.diff(opportunities_s)
    start_s, end_s = opportunities_s[gaps.argmax()], opportunities_s[gaps.argmax() + 1]
    assert end_s - start_s > 4
    rows = pq.read_table(drive / files.TRANSFERS).to_pylist()
    up = [row for row in rows if row["direction"] == "up" and row["delivered"]]
    times_s = np.array([(row["sent_ns"], row["end_ns"]) for row in up]) / 1e9
    is_inside = (times_s > start_s + 0.5) & (times_s < end_s)  # half a second for what was on its way
    assert is_inside[:, 0].sum() > 0
    assert not is_inside[:, 1].any()


def test_the_summary_accounts_for_every_request_and_the_report_draws_the_delays(drive):
    summary = json.loads((drive / files.SUMMARY).read_text())
    outcomes = ("completed", "failed", "link_timeout", "oom", "authentication", "incomplete")
    assert sum(summary[outcome] for outcome in outcomes) == 100
    assert summary["completed"] >= 95
    assert "Delay of messages over time" in (drive / files.REPORT).read_text()
