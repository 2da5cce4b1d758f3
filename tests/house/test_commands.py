"""The commands a reader is told to type exist, work, and are the ones that continuous integration runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.unit.tiny_scenario import call

FENCE = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"^([a-z][a-z-]*):(?!=)", re.MULTILINE)
PROMISED = {"demo", "test", "lint", "bench", "test-slow", "test-gpu"}
# What continuous integration can't or needn't run, and why.
NOT_IN_CI = {
    "test-gpu": "hosted machines have no CUDA device",
    "test-netns": "needs the right to make network namespaces",
    "test-slow": "takes longer than a change may wait",
    "schema": "an editor's convenience",
    "clean": "undoes the others",
    "help": "prints this list",
}
# Options that make a command of the README a matter of seconds; the last of two equal options counts.
LESS = {
    "run sealed": ["-o", "workload.arrivals.requests_per_device=1"],
    "eval": ["--limit", "2", "--tasks", "facts,corpus"],
    "model quantise": ["--calibration", "little.txt"],
    "study rate-distortion": ["--items", "2", "--tokens", "100"],
}
ROOT = Path(__file__).resolve().parents[2]


def logical_lines(script: str) -> list[list[str]]:
    """A shell script's commands as words: continued lines joined, comments gone, `cd` and `&&` chains split."""
    joined = script.replace("\\\n", " ")
    commands = [part for line in joined.splitlines() for part in line.split("&&")]
    return [words for words in (shlex.split(command, comments=True) for command in commands) if words]


def readme_commands() -> list[list[str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [words for block in FENCE.findall(text) for words in logical_lines(block)]


def make_targets(commands: list[list[str]]) -> set[str]:
    """Targets named by the `make` commands among these, variables and options left out."""
    return {
        word
        for words in commands
        if "make" in words
        for word in words[words.index("make") + 1 :]
        if re.fullmatch(r"[a-z][a-z-]*", word)
    }


def commands_for_testbed() -> list[list[str]]:
    """The README's `testbed ...` commands, without the path of the program."""
    return [words[1:] for words in readme_commands() if words[0].rpartition("/")[2] == "testbed"]


def on_ray(words: list[str]) -> bool:
    """Whether a command asks for Ray."""
    return "--executor" in words and words[words.index("--executor") + 1] == "ray"


def with_less(words: list[str]) -> list[str]:
    """The command with what LESS has for it."""
    return words + [
        more for name, options in LESS.items() if words[: len(name.split())] == name.split() for more in options
    ]


def makefile_targets() -> set[str]:
    return set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))


def ci_script_targets() -> set[str]:
    return make_targets(logical_lines((ROOT / ".ci/run").read_text(encoding="utf-8")))


def workflow_targets() -> set[str]:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    scripts = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    return make_targets([words for script in scripts for words in logical_lines(script)])


def test_words_are_read_as_a_shell_reads_them() -> None:
    script = (
        "make demo  # a comment\nmake lint \\\n  test\ncd x && make PYTHON=python3.12 bench\n.venv/bin/testbed run a\n"
    )
    assert make_targets(logical_lines(script)) == {"demo", "lint", "test", "bench"}


def test_promised_targets_exist() -> None:
    assert makefile_targets() >= PROMISED


def test_readme_names_the_two_set_up_commands_and_only_targets_that_exist() -> None:
    named = make_targets(readme_commands())
    assert {"demo", "test"} <= named
    assert named <= makefile_targets()


def test_readmes_targets_are_the_ones_the_workflow_runs() -> None:
    assert make_targets(readme_commands()) - set(NOT_IN_CI) <= workflow_targets()


def test_ci_script_and_workflow_run_the_same_checks() -> None:
    assert ci_script_targets() == {"lint", "test"}
    assert ci_script_targets() <= workflow_targets() <= makefile_targets()


def test_every_target_is_either_run_by_the_workflow_or_excused() -> None:
    assert makefile_targets() == workflow_targets() | set(NOT_IN_CI)


def test_ci_script_can_be_executed() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.parametrize("target", sorted(PROMISED))
def test_make_knows_how_to_make_the_target(target: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A folder beside whose scenarios the README's commands are typed."""
    shutil.copytree(ROOT / "scenarios", tmp_path / "scenarios")
    (tmp_path / "little.txt").write_text("The old otter told a story about a game. " * 40, encoding="utf-8")
    return tmp_path


def test_readmes_testbed_commands_work(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which the README gives them, in this process, less of what there is much of.

    The one on Ray is what test_wheel.py types.
    """
    commands = [words for words in commands_for_testbed() if not on_ray(words)]
    assert len(commands) == len(commands_for_testbed()) - 1
    monkeypatch.chdir(own_folder)
    for words in commands:
        done = call(*with_less(words))
        assert done.code == 0, f"testbed {shlex.join(words)}\n{done.out}{done.err}{done.error!r}"


@pytest.mark.slow
def test_readmes_testbed_commands_work_as_they_are_typed(own_folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for words in commands_for_testbed():
        done = subprocess.run(
            [sys.executable, "-m", "testbed", *words],
            cwd=own_folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"testbed {shlex.join(words)}\n{done.stdout}{done.stderr}"
