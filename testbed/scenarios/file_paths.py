"""Files that a file names, independent of where we stand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def with_absolute_files(node: Any, base: Path) -> Any:
    """Every `file` in workloads, links and the like, at any depth."""
    if isinstance(node, list):
        return [with_absolute_files(item, base) for item in node]
    if not isinstance(node, Mapping):
        return node
    return {
        key: absolute(value, base)
        if key == "file" and isinstance(value, str) and value
        else with_absolute_files(value, base)
        for key, value in node.items()
    }


def absolute(name: str, base: Path) -> str:
    """Beside the scenario; where nothing is there, below the working directory, for an override typed there."""
    path = Path(os.path.expanduser(name))  # noqa: PTH111 - pathlib's raises for an unknown user
    beside = (base / path).resolve()
    return str(path.resolve() if path.exists() and not beside.exists() else beside)
