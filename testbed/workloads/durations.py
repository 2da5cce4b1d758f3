"""Laws of times between requests: what they give at a quantile, and their moments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from testbed.core.portable import ln
from testbed.core.portable_arrays import exp_each, exponential_quantile, normal_quantile
from testbed.core.rng import F64Array
from testbed.scenarios.laws import Duration, ExponentialTime, FixedTime, LognormalTime, UniformTime

_U_MIN = 2.0**-33  # at 0 the normal law would start at -inf


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationLaw:
    """A law of times: `at(u)` in whole nanoseconds for u in [0, 1) in steps of 2**-53, as floats, and its moments."""

    at: Callable[[F64Array], F64Array]
    mean_ns: float
    std_ns: float


def duration_law(duration: Duration) -> DurationLaw:
    """The law that a scenario names."""
    match duration:
        case FixedTime(value=value):
            return DurationLaw(at=lambda u: np.full(len(u), float(value)), mean_ns=value, std_ns=0.0)
        case UniformTime(low=low, high=high):
            span = high - low
            return DurationLaw(
                at=lambda u: np.rint(low + u * span), mean_ns=(low + high) / 2, std_ns=span / math.sqrt(12)
            )
        case ExponentialTime(mean=mean):
            return DurationLaw(at=lambda u: np.rint(exponential_quantile(u) * mean), mean_ns=mean, std_ns=mean)
        case LognormalTime(mean=mean, std=std):
            sigma2 = ln(1 + (std / mean) ** 2)
            mu, sigma = ln(mean) - sigma2 / 2, math.sqrt(sigma2)
            return DurationLaw(
                at=lambda u: np.rint(exp_each(mu + normal_quantile(np.maximum(u, _U_MIN)) * sigma)),
                mean_ns=mean,
                std_ns=std,
            )
