"""One small scenario for all; quiet Ray with a token that is written nowhere."""

from __future__ import annotations

import os

# Before anything imports ray: its mode of authentication is read once in a process.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", "0" * 32)
os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112 - a busy machine's low memory is not ours

from pathlib import Path

import pytest

from testbed.run import RunResult

from .worlds import run_small, save_model, write_scenario


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenario's file."""
    folder = tmp_path_factory.mktemp("small")
    save_model(folder / "model")
    return write_scenario(folder, folder / "model")


@pytest.fixture(scope="session")
def undisturbed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The run in process: what every other way of running it must equal."""
    return run_small(small, tmp_path_factory.mktemp("local") / "run")
