"""How kernels are compiled: cached on disk, no bounds checks, no reordering of floating-point arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
from filelock import FileLock
from numba.core.compiler_lock import global_compiler_lock

Params = ParamSpec("Params")
Result = TypeVar("Result")


def compiled(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """Compiled for the argument types of each first call. Contraction to fused multiply-add stays off.

    Of processes that start together one compiles, and the others load what it made.
    Where neither this folder nor the user's cache can be written, every process compiles for itself.
    """
    options: dict[str, Any] = {"boundscheck": False, "error_model": "numpy", "fastmath": False}
    try:
        made: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)  # type: ignore[no-any-return]
    made.compile = _one_at_a_time(made)
    return made  # type: ignore[no-any-return]


def _one_at_a_time(kernel: Any) -> Callable[[object], object]:
    """The kernel's compilation behind a lock of its module's; without one where the file system has no locks.

    numba's cache is made for one process at a time: two that add machine code for different argument types could
    leave it under each other's names.
    """
    module = kernel.py_func.__module__.rpartition(".")[2]
    lock, compile_for = _lock(Path(kernel.stats.cache_path) / f"{module}.lock"), kernel.compile

    def compile_alone(argument_types: object) -> object:
        # The lock between threads is taken first, since a kernel's compilation compiles the kernels that it calls.
        with global_compiler_lock, ExitStack() as held:
            with suppress(OSError, NotImplementedError):
                held.enter_context(lock)
            return compile_for(argument_types)

    return compile_alone


@cache
def _lock(file: Path) -> FileLock:
    """One object for all kernels of a module, which may take it again while they hold it."""
    return FileLock(file)


@compiled
def _nothing() -> None:
    pass


def is_cached(module: str) -> bool:
    """Whether machine code of a module of this package lies on disk."""
    kernel: Any = _nothing
    folder = kernel.stats.cache_path
    return bool(folder) and any(Path(folder).glob(f"{module}.*.nbi"))
