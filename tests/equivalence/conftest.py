"""Tiny models of every family, saved once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from testbed.models.source import ModelSource

from .tiny_models import save_tiny


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelSource]:
    """The saved tiny model of a case, written at its first use."""
    saved: dict[str, ModelSource] = {}

    def get(case: str) -> ModelSource:
        if case not in saved:
            folder: Path = tmp_path_factory.mktemp("tiny")
            saved[case] = save_tiny(case, folder)
        return saved[case]

    return get
