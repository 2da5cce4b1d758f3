"""How kernels are compiled: cached on disk, no bounds checks, no reordering of floating-point arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba

Params = ParamSpec("Params")
Result = TypeVar("Result")


def compiled(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """Compiled for the argument types of each first call. Contraction to fused multiply-add stays off.

    Where neither this folder nor the user's cache can be written, every process compiles for itself.
    """
    options: dict[str, Any] = {"boundscheck": False, "error_model": "numpy", "fastmath": False}
    try:
        made: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        made = numba.njit(**options)(function)
    return made  # type: ignore[no-any-return]


@compiled
def _nothing() -> None:
    pass


def is_cached(module: str) -> bool:
    """Whether machine code of a module of this package lies on disk."""
    kernel: Any = _nothing
    folder = kernel.stats.cache_path
    return bool(folder) and any(Path(folder).glob(f"{module}.*.nbi"))
