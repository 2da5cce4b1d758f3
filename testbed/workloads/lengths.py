"""Laws of token counts: what they give at a quantile, and their exact moments."""

from __future__ import annotations

import math
from collections.abc import Callable
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

_U_MIN = 2.0**-33  # at 0 the normal law would start at -inf
_NUM_SUMMED = 1 << 16  # values whose probabilities are summed one by one; what lies above is integrated


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthLaw:
    """A law of whole numbers from 1: `at(u)` for u in [0, 1) in steps of 2**-53, its mean and its variance."""

    at: Callable[[F64Array], I64Array]
    mean: float
    variance: float


def length_law(length: Length) -> LengthLaw:
    """The law that a scenario names."""
    match length:
        case FixedLength():
            return _empirical([length.value])
        case EmpiricalLength():
            return _empirical(length.values)
        case UniformLength():
            return _uniform(length.low, length.high)
        case GeometricLength():
            return _geometric(length.mean, length.max)
        case LognormalLength():
            return _lognormal(length)


def _empirical(values: list[int]) -> LengthLaw:
    listed = np.array(values, dtype=np.int64)
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return LengthLaw(at=lambda u: listed[(u * len(listed)).astype(np.int64)], mean=mean, variance=variance)


def _uniform(low: int, high: int) -> LengthLaw:
    span = high - low + 1
    at: Callable[[F64Array], I64Array] = lambda u: low + (u * span).astype(np.int64)  # noqa: E731
    return LengthLaw(at=at, mean=(low + high) / 2, variance=(span**2 - 1) / 12)


def _geometric(mean: float, most: int) -> LengthLaw:
    """Cut at `most`: P(N > k) = q**k below it, and the moments are sums of (2 k + 1) q**k and of q**k."""
    q = 1 - 1 / mean
    if q == 0:
        return _empirical([1])
    scale, tail = ln(q), q**most

    def at(u: F64Array) -> I64Array:
        found: I64Array = np.minimum(1 + np.floor(ln_each(1 - u) / scale), most).astype(np.int64)
        return found

    first = (1 - tail) / (1 - q)
    second = (1 + q - tail * (2 * most * (1 - q) + 1 + q)) / (1 - q) ** 2
    return LengthLaw(at=at, mean=first, variance=max(0.0, second - first**2))


def _lognormal(length: LognormalLength) -> LengthLaw:
    """Rounded and cut: by the tail sums of P(N > k) = P(X > k + 1/2), where X is the law before."""
    sigma2 = ln(1 + (length.std / length.mean) ** 2)
    mu, sigma = ln(length.mean) - sigma2 / 2, math.sqrt(sigma2)

    def at(u: F64Array) -> I64Array:
        value = exp_each(mu + normal_quantile(np.maximum(u, _U_MIN)) * sigma)
        return np.clip(np.rint(value), 1, length.max).astype(np.int64)

    normal, last = NormalDist(), min(length.max, _NUM_SUMMED)
    beyond = [1.0, *(normal.cdf((mu - math.log(k + 0.5)) / sigma) for k in range(1, last))]
    first, second = math.fsum(beyond), math.fsum((2 * k + 1) * p for k, p in enumerate(beyond))
    if length.max > last:  # the midpoint rule turns these sums into integrals, which are closed
        first += _partial_moment(1, mu, sigma, last, length.max)
        second += _partial_moment(2, mu, sigma, last, length.max)
    return LengthLaw(at=at, mean=first, variance=max(0.0, second - first**2))


def _partial_moment(order: int, mu: float, sigma: float, low: float, high: float) -> float:
    """The integral of ``order x**(order - 1) P(X > x)`` from `low` to `high`, for a lognormal X."""

    def until(x: float) -> float:
        z = (math.log(x) - mu) / sigma
        whole = math.exp(order * mu + order**2 * sigma**2 / 2)
        return float(x**order * NormalDist().cdf(-z) + whole * NormalDist().cdf(z - order * sigma))

    return until(high) - until(low)
