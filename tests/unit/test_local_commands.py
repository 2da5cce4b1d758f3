"""`testbed calibrate` and `testbed validate-local`: what they refuse, and the whole of it in small (slow)."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from testbed.core.errors import ScenarioError
from testbed.models.source import resolve
from testbed.studies.local.plan import check_emulated
from testbed.studies.local.points import POINTS
from tests.unit.test_bad_input import refused
from tests.unit.tiny_scenario import call

ROOT = Path(__file__).parents[2]


def command_line(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "testbed", *arguments], capture_output=True, text=True, env=environment(), check=False
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_every_point_can_be_emulated() -> None:
    layers = resolve("pebble").shape.num_layers
    for point in POINTS:
        check_emulated(point.scenario(), layers)
    assert len({point.name for point in POINTS}) == len(POINTS) >= 8


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("fleet.0.link.loss=0.01", "fleet[0].link.loss"),
        ("fleet.0.link.transport=tcp", "fleet[0].link.transport"),
        ("policy=cloud-only", "fleet[0].policy"),
        ("policy.split=12", "fleet[0].policy"),
        ("servers.0.count=2", "servers"),
        ("servers.0.chunk_tokens=64", "servers[0].chunk_tokens"),
        ("workload.ignore_eos=false", "workload.ignore_eos"),
        ("security.seal=aes-gcm", "security.seal"),
        ("stop_at=1 s", "stop_at"),
    ],
)
def test_what_is_not_emulated_is_refused_with_its_path(override: str, path: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        check_emulated(POINTS[0].scenario([override]), 12)
    assert caught.value.path == path


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "profile.yaml").write_text("device: {}\n")
    assert "no such folder" in refused("calibrate", "--out", tmp_path / "no" / "x.yaml")
    assert "did you mean 'base'?" in refused("validate-local", "--point", "bse")
    assert refused("validate-local", "--load", "1,0").startswith("--load: not loads (got '1,0')")
    line = refused("validate-local", "--profile", tmp_path / "profile.yaml")
    assert line.startswith(f"{tmp_path / 'profile.yaml'}: server: required key is missing")


def test_both_commands_are_in_the_help() -> None:
    said = call("--help").out
    assert "calibrate" in said
    assert "validate-local" in said


@pytest.mark.slow
def test_a_calibrated_machine_is_compared_with_itself(tmp_path: Path) -> None:
    profile, table = tmp_path / "this.yaml", tmp_path / "table.csv"
    done = command_line("calibrate", "--out", str(profile), "--repeats", "3")
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load(profile.read_text())
    assert "measured by testbed calibrate on" in written["device"]["memory_bandwidth"]["source"]
    done = command_line(
        "validate-local", "--profile", str(profile), "--point", "base", "-o", "fleet.0.count=2",
        "-o", "workload.arrivals.requests_per_device=2", "--load", "1,2", "--out", str(table),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(table.open()))
    assert {row["point"] for row in rows} == {"base, load 1", "base, load 2"}
    assert {row["metric"] for row in rows} == {"ttft", "tpot", "e2e", "throughput"}
    # The machine may be busy, and tails with it; a wrong unit isn't this near.
    steady = [row for row in rows if row["metric"] == "tpot" and row["statistic"] == "p50"]
    assert all(0.1 < float(row["modelled"]) / float(row["real"]) < 10 for row in steady)


@pytest.mark.slow
def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "testbed", "calibrate", "--out", str(tmp_path / "x.yaml")],
        env=environment(),
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - it takes no lock
    )
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while len(children) < 3 and time.monotonic() < deadline:  # both sides, and Python's own resource tracker
        time.sleep(0.2)
        children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
