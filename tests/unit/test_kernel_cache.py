"""Kernels' machine code on disk, where several processes start at once: hosts of a run, workers of a test run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[2]
KERNELS = """
from testbed.codecs.kernel_compile import compiled

@compiled
def halved(x):
    return x / 2

@compiled
def quarter(x):
    return halved(halved(x))
"""
# When everybody is ready; then each argument type's first call.
USER = """
import sys
import some_kernels as kernels
print("ready", flush=True)
sys.stdin.readline()
print(*[kernels.quarter(kind(6)) for kind in map(vars(__builtins__).get, sys.argv[1:])])
print(*[sum(kernel.stats.cache_misses.values()) for kernel in (kernels.halved, kernels.quarter)])
"""


def test_processes_that_start_together_compile_each_kernel_once(tmp_path: Path) -> None:
    """A kernel that a kernel calls included, for each type of argument; the two ask in opposite orders."""
    (tmp_path / "some_kernels.py").write_text(KERNELS)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", USER, *kinds],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{REPO_ROOT}{os.pathsep}{tmp_path}"},
        )
        for kinds in (["int", "float"], ["float", "int"])
    ]
    assert [process.stdout.readline() for process in started if process.stdout] == ["ready\n", "ready\n"]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = [process.communicate(timeout=120)[0].splitlines() for process in started]
    assert [values for values, _ in found] == ["1.5 1.5", "1.5 1.5"]
    # int and float arguments of `quarter`; of `halved` int, and float, which both need.
    assert [sum(column) for column in zip(*[map(int, misses.split()) for _, misses in found], strict=True)] == [2, 2]
