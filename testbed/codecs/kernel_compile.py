"""How kernels are compiled: cached on disk, no bounds checks, no reordering of floating-point arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba

Params = ParamSpec("Params")
Result = TypeVar("Result")


def compiled(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """Compiled for the argument types of each first call. Contraction to fused multiply-add stays off."""
    made: Any = numba.njit(cache=True, boundscheck=False, error_model="numpy", fastmath=False)(function)
    return made  # type: ignore[no-any-return]


@compiled
def _nothing() -> None:
    pass


def cache_folder() -> Path:
    """Where numba keeps the machine code of this package's kernels."""
    kernel: Any = _nothing
    return Path(kernel.stats.cache_path)
