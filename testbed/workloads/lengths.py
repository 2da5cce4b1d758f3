"""Laws of token counts: what they give at a quantile, and their moments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from testbed.core.portable import ln
from testbed.core.portable_arrays import exp_each, normal_quantile
from testbed.core.rng import F64Array, I64Array
from testbed.scenarios.laws import EmpiricalLength, FixedLength, Length, LognormalLength, UniformLength

_U_MIN = 2.0**-33  # at 0 the normal law would start at -inf


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthLaw:
    """A law of whole numbers from 1: `at(u)` for u in [0, 1), and its moments."""

    at: Callable[[F64Array], I64Array]


def length_law(length: Length) -> LengthLaw:
    """The law that a scenario names."""
    match length:
        case FixedLength():
            return LengthLaw(at=lambda u: np.full(len(u), length.value, dtype=np.int64))
        case UniformLength():
            span = length.high - length.low + 1
            return LengthLaw(at=lambda u: length.low + (u * span).astype(np.int64))
        case EmpiricalLength():
            values = np.array(length.values, dtype=np.int64)
            return LengthLaw(at=lambda u: values[(u * len(values)).astype(np.int64)])
        case LognormalLength():
            return LengthLaw(at=lambda u: _lognormal(length, u))


def _lognormal(length: LognormalLength, u: F64Array) -> I64Array:
    sigma2 = ln(1 + (length.std / length.mean) ** 2)
    mu = ln(length.mean) - sigma2 / 2
    value = exp_each(mu + normal_quantile(np.maximum(u, _U_MIN)) * math.sqrt(sigma2))
    return np.clip(np.rint(value), 1, length.max).astype(np.int64)
