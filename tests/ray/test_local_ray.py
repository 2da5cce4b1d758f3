"""Ray on this machine, started and ended by the command line: quiet, and nothing is left of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from testbed.results.folder import read_run
from testbed.run import RunResult

from .worlds import MARK, marked, wait_until_gone

# Ctrl-C in a terminal reaches the whole process group: the run, Ray and its workers.
INTERRUPTED = """
import os, signal, sys
import testbed.actors.pool as pools
from testbed.cli import main

collect = pools.RayPool._collect

def collect_then_interrupt(pool, lane):
    collect(pool, lane)
    if pool.num_batches >= 150 and pool._failure is None:
        os.killpg(0, signal.SIGINT)

pools.RayPool._collect = collect_then_interrupt
main()
"""


def run_cli(
    arguments: list[str], folder: Path, *, program: tuple[str, ...] = ("-m", "testbed"), **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command line in a folder and process group of its own; afterwards none of its processes is left."""
    mark = uuid.uuid4().hex
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=folder,
        env=own | {MARK: mark} | environment,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=240,
        check=False,
    )
    assert wait_until_gone(marked(mark)) == [], done.stderr
    return done


def test_a_run_of_its_own(small: Path, undisturbed: RunResult, tmp_path: Path) -> None:
    """From a folder that has its own `actors`, with another hash seed and an empty home."""
    for name in ("actors", "home"):
        (tmp_path / name).mkdir()
    (tmp_path / "actors" / "__init__.py").write_text("raise RuntimeError('not this one')\n")
    done = run_cli(
        ["run", str(small), "--executor", "ray", "--out", "out", "--json"],
        tmp_path,
        PYTHONHASHSEED="4711",
        HOME=str(tmp_path / "home"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["event_digest"] == undisturbed.summary["event_digest"]
    assert [item.name for item in (tmp_path / "home").iterdir() if "ray" in item.name] == []


def test_interrupt_keeps_what_there_is(small: Path, tmp_path: Path) -> None:
    done = run_cli(["run", str(small), "--executor", "ray", "--out", "out"], tmp_path, program=("-c", INTERRUPTED))
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr
    kept = read_run(tmp_path / "out").summary
    assert (kept["complete"], kept["reason"]) == (False, "interrupted")
    assert kept["completed"] > 0


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("127.0.0.1:1", "no Ray cluster can be reached there"),
        ("nowhere", "no address of a Ray cluster"),
        ("auto", "the Ray cluster can't be joined: Could not find any running Ray instance"),
    ],
)
def test_unreachable_address(small: Path, tmp_path: Path, address: str, problem: str) -> None:
    done = run_cli(["run", str(small), "--address", address, "--out", "out"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --address: {problem}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
