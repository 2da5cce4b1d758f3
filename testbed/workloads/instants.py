"""Instants in whole nanoseconds, kept within 64 bits."""

from __future__ import annotations

import numpy as np

from testbed.core.rng import F64Array, I64Array
from testbed.core.units import NS_PER_S

LAST_NS = 36_500 * 86_400 * NS_PER_S  # as far as a scenario can name an instant
FAR_NS = 1 << 62  # stands for all that come later than that


def whole_ns(seconds: F64Array) -> F64Array:
    """Nanoseconds without a fraction, still as floats: rounded to the nearest, ties to even."""
    return np.rint(seconds * NS_PER_S)


def summed_gaps(gaps_ns: F64Array) -> I64Array:
    """Sums along the last axis of whole gaps; FAR_NS once they have left virtual time."""
    sums_ns = np.cumsum(np.minimum(gaps_ns, FAR_NS).astype(np.int64), axis=-1)
    return np.where(np.cumsum(gaps_ns, axis=-1) < FAR_NS, sums_ns, FAR_NS)
