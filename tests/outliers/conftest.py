"""One thread, and a variant of pebble that several tests look at."""

from __future__ import annotations

import pytest
import torch

from testbed.models.outliers.make import Made, make_outliers
from testbed.models.outliers.recipe import Outliers
from testbed.models.source import resolve


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def wide_pebble(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The acceptance fixture: pebble at a hidden size of 1024 with an outlier channel and a massive first token."""
    return make_outliers(resolve("pebble"), Outliers(cut=6), tmp_path_factory.mktemp("wide") / "pebble")
