"""A run's folder: made before anything runs, never written over by accident."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from testbed import __version__
from testbed.core.errors import ScenarioError
from testbed.scenarios.fingerprint import fingerprint
from testbed.scenarios.schema import Scenario

RUN_MARK = "scenario.yaml"
_PACKAGES = ("numpy", "simpy", "torch", "transformers", "ray", "safetensors", "pyarrow")


def default_folder(scenario: Scenario) -> Path:
    """``runs/<name>-<fingerprint>``, below the working directory."""
    return Path("runs") / f"{scenario.name}-{fingerprint(scenario)}"


def make_folder(folder: Path, *, force: bool) -> None:
    """An empty run folder; with `force` an earlier run's folder there is replaced.

    Raises ScenarioError where something is there already, or the folder can't be written.
    """
    if folder.exists():
        is_run = folder.is_dir() and ((folder / RUN_MARK).exists() or not any(folder.iterdir()))
        if not is_run:
            raise ScenarioError("exists and is no run folder", file=folder, allowed="another --out")
        if not force and any(folder.iterdir()):
            raise ScenarioError("the run folder exists", file=folder, allowed="another --out, or --force to replace it")
        _attempt(folder, lambda: shutil.rmtree(folder))
    _attempt(folder, lambda: folder.mkdir(parents=True))
    if not os.access(folder, os.W_OK):
        raise ScenarioError("the run folder can't be written", file=folder)


def _attempt(folder: Path, action: Any) -> None:
    try:
        action()
    except OSError as error:
        raise ScenarioError(f"the run folder can't be made: {error.strerror or error}", file=folder) from None


def write_inputs(folder: Path, scenario: Scenario, *, started: str) -> None:
    """What was run, and with what: scenario.yaml reads back as the same scenario, env.json says where it ran."""
    text = yaml.safe_dump(scenario.as_data(), sort_keys=False, allow_unicode=True)
    (folder / RUN_MARK).write_text(text, encoding="utf-8")
    environment = {
        "testbed": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "scenario": scenario.name,
        "seed": scenario.seed,
        "fingerprint": fingerprint(scenario),
        "executor": scenario.execution.executor,
        "started": started,
    }
    (folder / "env.json").write_text(json.dumps(environment, indent=2) + "\n", encoding="utf-8")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
