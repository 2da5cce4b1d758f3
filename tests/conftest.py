"""Shared by all tests: quiet, single-threaded, offline, and repeatable."""

from __future__ import annotations

import os

# Before anything imports torch or ray: with more OpenMP threads, a busy neighbour makes small operations wait.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from testbed.models.source import ModelSource

REPO_ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = REPO_ROOT.parent / "shared" / "data"

# The same examples in every run, and no time limit on an example: a slow machine is not a wrong program.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout's root folder."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Measurements, traces and models of others that do not travel with the project."""
    if not DATA_DIR.is_dir():
        pytest.skip("needs the data folder ../shared/data beside the checkout, which is not there")
    return DATA_DIR


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelSource]:
    """A case of tests/equivalence/tiny_models.py, saved at its first use; nobody changes it."""
    from tests.equivalence.tiny_models import save_tiny

    saved: dict[str, ModelSource] = {}

    def get(case: str) -> ModelSource:
        if case not in saved:
            saved[case] = save_tiny(case, tmp_path_factory.mktemp("tiny"))
        return saved[case]

    return get


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Who runs which tests, where several processes run them."""
    from tests.sharing_out import ByFile

    return ByFile(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A `gpu` test needs a CUDA device that torch can use."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch sees none")
