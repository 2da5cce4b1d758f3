"""Ray on this machine, started and ended by the command line: nothing is left of it.

A run that nobody interrupts is in tests/house/test_wheel.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from testbed.actors import ray_setup
from testbed.results.folder import read_run
from tests.processes import MARK, marked, wait_until_gone
from tests.unit.tiny_scenario import call

# Ctrl-C in a terminal reaches the whole process group: the run, Ray and its workers.
INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever this test was started with
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


def test_interrupt_keeps_what_there_is(small: Path, tmp_path: Path) -> None:
    """In a process group of its own, of which no process is left."""
    mark = uuid.uuid4().hex
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "run", str(small), "--executor", "ray", "--out", "out"],
        cwd=tmp_path,
        env=own | {MARK: mark},
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=240,
        check=False,
    )
    assert wait_until_gone(marked(mark)) == [], done.stderr
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr
    kept = read_run(tmp_path / "out").summary
    assert (kept["complete"], kept["reason"]) == (False, "interrupted")
    assert kept["completed"] > 0


# No cluster but the test's own: somebody else's may run on this machine.
ALONE = """
import ray._private.services as services
services._find_address_from_flag = lambda flag: set()
services.find_bootstrap_address = lambda folder: None
"""


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("127.0.0.1:1", "no Ray cluster can be reached there"),
        ("nowhere", "no address of a Ray cluster"),
        ("auto", "the Ray cluster can't be joined: Could not find any running Ray instance"),
    ],
)
def test_unreachable_address(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, problem: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_setup, "_PROBE", ALONE + ray_setup._PROBE)
    done = call("run", small, "--address", address, "--out", tmp_path / "out")
    assert done.code == 2
    assert done.err.startswith(f"error: --address: {problem}")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
