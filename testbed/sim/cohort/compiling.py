"""How the engine's kernels are compiled: with bounds checked, one entry cached on disk; plain Python without numba.

Plain Python gives the same results, a hundred times as slowly: NUMBA_DISABLE_JIT=1 asks for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from testbed.core import events, request_row

Params = ParamSpec("Params")
Result = TypeVar("Result")

# Without reference counts: no kernel makes an array, and counting would take most of its time.
_OPTIONS: dict[str, Any] = {"boundscheck": True, "error_model": "numpy", "fastmath": False, "_nrt": False}


def compiled(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """Part of an entry. Integer arithmetic wraps around, and an index out of range raises."""
    try:
        import numba  # noqa: PLC0415 - without it the engine still runs
    except ImportError:
        return function
    made: Callable[Params, Result] = numba.njit(**_OPTIONS)(function)
    return made


def entry(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """What Python calls: compiled with all its parts when it is called first, and kept for later processes."""
    made: Any = compiled(function)
    if made is not function and hasattr(made, "enable_caching"):
        _cache(made)
    return made  # type: ignore[no-any-return]


def _cache(made: Any) -> None:
    """On disk, until any part's source changes: numba itself would look at the entry's own file alone."""
    try:
        made.enable_caching()
        file = made._cache._cache_file
        file._source_stamp = (file._source_stamp, _sources())
    except (RuntimeError, AttributeError):  # nowhere to write, or another numba: every process compiles for itself
        made.disable_caching() if hasattr(made, "disable_caching") else None


@cache
def _sources() -> str:
    """Of all that the kernels are made from."""
    files = [
        *sorted(Path(__file__).parent.glob("*.py")),
        *(Path(str(module.__file__)) for module in (events, request_row)),
    ]
    return hashlib.blake2b(b"".join(file.read_bytes() for file in files), digest_size=16).hexdigest()
