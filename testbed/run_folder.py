"""A run's folder: made before anything runs, never written over by accident."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from testbed import __version__
from testbed.core.errors import ScenarioError
from testbed.results import files
from testbed.scenarios.fingerprint import fingerprint
from testbed.scenarios.schema import Scenario
from testbed.scenarios.yaml_file import yaml_text

RUN_MARK = files.SCENARIO
_WRITTEN_BY_A_RUN = {
    files.SCENARIO, files.ENVIRONMENT, files.SUMMARY, files.REQUESTS, files.SPANS, files.TRANSFERS, files.SERVERS,
    files.SERVER_TOTALS, files.SERVER_STATES, files.SCALE_EVENTS, files.LINKS, files.EDGES, files.DEVICES, files.REPORT,
}  # fmt: skip
_PACKAGES = ("numpy", "simpy", "torch", "transformers", "ray", "safetensors", "pyarrow")


def default_folder(scenario: Scenario) -> Path:
    """``runs/<name>-<fingerprint>``, below the working directory."""
    return Path("runs") / f"{scenario.name}-{fingerprint(scenario)}"


def make_folder(folder: Path, *, force: bool) -> None:
    """An empty run folder; with `force` an earlier run's files there are removed, and nothing that no run wrote.

    Raises ScenarioError where something is there already, or the folder can't be written.
    """
    for name in check_folder(folder, force=force):
        _attempt(folder, (folder / name).unlink)
    _attempt(folder, lambda: folder.mkdir(parents=True, exist_ok=True))
    _attempt(folder, lambda: _try_writing(folder))


def check_folder(folder: Path, *, force: bool) -> list[str]:
    """The files of an earlier run that `force` lets a new one replace; changes nothing.

    Raises ScenarioError where something is there that must stay.
    """
    if not (folder.exists() or folder.is_symlink()):
        return []
    if not folder.is_dir():
        raise ScenarioError("exists and is no folder", file=folder, allowed="another --out")
    found = sorted(path.name for path in folder.iterdir())
    if not found:
        return []
    if not {RUN_MARK, files.ENVIRONMENT} <= set(found):
        raise ScenarioError("exists and is no run folder", file=folder, allowed="another --out")
    foreign = [name for name in found if name not in _WRITTEN_BY_A_RUN]
    if foreign:
        raise ScenarioError(
            "the run folder holds a file that is not the run's", file=folder, value=foreign[0], allowed="another --out"
        )
    if not force:
        raise ScenarioError("the run folder exists", file=folder, allowed="another --out, or --force to replace it")
    return found


def _try_writing(folder: Path) -> None:
    """Permission bits say little on read-only file systems and to root: only writing tells."""
    (folder / RUN_MARK).touch()
    (folder / RUN_MARK).unlink()


def _attempt(folder: Path, action: Callable[[], object]) -> None:
    try:
        action()
    except OSError as error:
        problem = f"the run folder can't be written: {error.strerror or error}"
        raise ScenarioError(problem, file=folder, allowed="another --out") from None


def write_inputs(folder: Path, scenario: Scenario, *, started: str) -> None:
    """What was run, and with what: scenario.yaml reads back as the same scenario, env.json says where it ran."""
    (folder / RUN_MARK).write_text(yaml_text(scenario.as_data()), encoding="utf-8")
    told = {
        **environment(),
        "scenario": scenario.name,
        "seed": scenario.seed,
        "fingerprint": fingerprint(scenario),
        "executor": scenario.execution.executor,
        "started": started,
    }
    (folder / files.ENVIRONMENT).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def environment() -> dict[str, object]:
    """Where something runs: versions and machine, as JSON types."""
    return {
        "testbed": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
