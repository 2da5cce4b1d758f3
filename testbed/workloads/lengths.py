"""Laws of token counts: what they give at a quantile, and their exact moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from testbed.core.portable import ln
from testbed.core.portable_arrays import exp_each, ln_each, normal_quantile
from testbed.core.rng import F64Array, I64Array
from testbed.scenarios.laws import (
    EmpiricalLength,
    FixedLength,
    GeometricLength,
    Length,
    LognormalLength,
    UniformLength,
)
from testbed.workloads.trace_file import read_counts

_U_MIN = 2.0**-33  # at 0 the normal law would start at -inf
_NUM_SUMMED = 1 << 16  # values whose probabilities are summed one by one; what lies above is integrated


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthLaw:
    """A law of whole numbers from 1: `at(u)` for u in [0, 1) in steps of 2**-53, and its first two moments."""

    at: Callable[[F64Array], I64Array]
    moments: Callable[[], tuple[float, float]]  # the means of the number and of its square; not always quick

    @property
    def mean(self) -> float:
        return self.moments()[0]

    @property
    def variance(self) -> float:
        first, second = self.moments()
        return max(0.0, second - first**2)


def length_law(length: Length) -> LengthLaw:
    """The law that a scenario names. Raises ScenarioError for a file that can't be read."""
    match length:
        case FixedLength():
            return _empirical([length.value])
        case EmpiricalLength():
            return _empirical(length.values or read_counts(str(length.file), str(length.column)))
        case UniformLength():
            return _uniform(length.low, length.high)
        case GeometricLength():
            return _geometric(length.mean, length.max)
        case LognormalLength():
            return _lognormal(length)


def _empirical(values: Sequence[int]) -> LengthLaw:
    listed = np.array(values, dtype=np.int64)

    def moments() -> tuple[float, float]:
        return sum(values) / len(values), sum(value**2 for value in values) / len(values)

    return LengthLaw(at=lambda u: listed[(u * len(listed)).astype(np.int64)], moments=moments)


def _uniform(low: int, high: int) -> LengthLaw:
    span, mean = high - low + 1, (low + high) / 2

    def at(u: F64Array) -> I64Array:
        return low + (u * span).astype(np.int64)

    return LengthLaw(at=at, moments=lambda: (mean, mean**2 + (span**2 - 1) / 12))


def _geometric(mean: float, most: int) -> LengthLaw:
    """Cut at `most`: P(N > k) = q**k below it, and the moments are sums of q**k and of (2 k + 1) q**k."""
    q = 1 - 1 / mean
    if q == 0:
        return _empirical([1])
    scale = ln(q)

    def at(u: F64Array) -> I64Array:
        found: I64Array = np.minimum(1 + np.floor(ln_each(1 - u) / scale), most).astype(np.int64)
        return found

    def moments() -> tuple[float, float]:
        tail = q**most
        return (1 - tail) / (1 - q), (1 + q - tail * (2 * most * (1 - q) + 1 + q)) / (1 - q) ** 2

    return LengthLaw(at=at, moments=moments)


def _lognormal(length: LognormalLength) -> LengthLaw:
    """Rounded and cut: by the tail sums of P(N > k) = P(X > k + 1/2), where X is the law before."""
    sigma2 = ln(1 + (length.std / length.mean) ** 2)
    mu, sigma = ln(length.mean) - sigma2 / 2, math.sqrt(sigma2)

    def at(u: F64Array) -> I64Array:
        value = exp_each(mu + normal_quantile(np.maximum(u, _U_MIN)) * sigma)
        return np.clip(np.rint(value), 1, length.max).astype(np.int64)

    def moments() -> tuple[float, float]:
        normal, last = NormalDist(), min(length.max, _NUM_SUMMED)
        beyond = [1.0, *(normal.cdf((mu - math.log(k + 0.5)) / sigma) for k in range(1, last))]
        first, second = math.fsum(beyond), math.fsum((2 * k + 1) * p for k, p in enumerate(beyond))
        if length.max > last:  # the midpoint rule turns these sums into integrals, which are closed
            first += _partial_moment(1, mu, sigma, last, length.max)
            second += _partial_moment(2, mu, sigma, last, length.max)
        return first, second

    return LengthLaw(at=at, moments=moments)


def _partial_moment(order: int, mu: float, sigma: float, low: float, high: float) -> float:
    """The integral of ``order x**(order - 1) P(X > x)`` from `low` to `high`, for a lognormal X."""

    def until(x: float) -> float:
        z = (math.log(x) - mu) / sigma
        whole = math.exp(order * mu + order**2 * sigma**2 / 2)
        return float(x**order * NormalDist().cdf(-z) + whole * NormalDist().cdf(z - order * sigma))

    return until(high) - until(low)
