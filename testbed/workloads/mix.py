"""Which kind each request is of, where the mix of kinds shifts with time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from testbed.core.rng import F64Array, I64Array
from testbed.scenarios.workload import RequestKind


def kinds_at(kinds: Sequence[RequestKind], time_ns: I64Array, u: F64Array) -> I64Array:
    """The kind at each instant for a draw in [0, 1): shares are laid side by side in the order of the kinds."""
    total, kind = np.zeros(len(u)), np.zeros(len(u), dtype=np.int64)
    for one in kinds[:-1]:
        total += _shares_at(one, time_ns)
        kind += u >= total
    return kind


def _shares_at(kind: RequestKind, time_ns: I64Array) -> F64Array:
    """Linear between a kind's points."""
    times, shares = (np.array(column) for column in zip(*kind.points, strict=True))
    before = np.clip(np.searchsorted(times, time_ns, side="right") - 1, 0, len(times) - 1)
    after = np.minimum(before + 1, len(times) - 1)
    along = np.clip(time_ns - times[before], 0, None) / np.maximum(times[after] - times[before], 1)
    found: F64Array = shares[before] + (shares[after] - shares[before]) * along
    return found
