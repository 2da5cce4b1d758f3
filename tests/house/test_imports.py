"""Naming the package or asking for help is quick: none of the heavy libraries is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("matplotlib", "pandas", "pyarrow", "ray", "simpy", "torch", "transformers")
VERBS = ("run", "validate", "list", "show", "report", "eval", "schema")
REPORT = (
    f"print('HEAVY', *sorted({set(HEAVY)!r} & {{name.partition('.')[0] for name in sys.modules}}), file=sys.stderr)"
)


def heavy_after(code: str, repo_root: Path) -> tuple[str, list[str]]:
    """What a fresh interpreter prints for ``code``, and which heavy libraries it then holds."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{REPORT}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=repo_root,
        timeout=120,
    )
    last = done.stderr.splitlines()[-1].split()
    assert last[0] == "HEAVY"
    return done.stdout, last[1:]


def test_the_probe_sees_a_heavy_library(repo_root: Path) -> None:
    assert heavy_after("import simpy", repo_root)[1] == ["simpy"]


def test_import_testbed_loads_no_heavy_library(repo_root: Path) -> None:
    assert heavy_after("import testbed", repo_root)[1] == []


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_loads_no_heavy_library(arguments: list[str], repo_root: Path) -> None:
    code = (
        f"sys.argv = ['testbed', *{arguments!r}]\n"
        "from testbed.cli import main\n"
        "try:\n    code = main()\n"
        "except SystemExit as stop:\n    code = stop.code\n"
        "assert not code, code"
    )
    printed, heavy = heavy_after(code, repo_root)
    assert "usage" in printed.lower()
    assert heavy == []
