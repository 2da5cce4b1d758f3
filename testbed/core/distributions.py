"""Named distributions as inverse distribution functions, with their exact moments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from testbed.core.errors import ScenarioError

# At u = 0 an unbounded law would start at -inf; a table clips there, and a delay can't be negative anyway.
_U_MIN = 2.0**-33


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A law on the real line: `quantile(u)` for u in [0, 1), its mean and standard deviation."""

    name: str
    quantile: Callable[[float], float]
    mean: float
    std: float


def constant(value: float) -> Distribution:
    """Always the same."""
    return Distribution(name="constant", quantile=lambda _: value, mean=value, std=0.0)


def uniform(low: float, high: float) -> Distribution:
    """Anything between two ends, equally likely."""
    return Distribution(
        name="uniform",
        quantile=lambda u: low + (high - low) * u,
        mean=(low + high) / 2,
        std=(high - low) / math.sqrt(12),
    )


def exponential(mean: float) -> Distribution:
    """Without memory; its standard deviation is its mean."""
    return Distribution(name="exponential", quantile=lambda u: -mean * math.log1p(-u), mean=mean, std=mean)


def normal(mean: float, std: float) -> Distribution:
    """The bell curve, by mean and standard deviation."""
    law = NormalDist(mean, std)
    return Distribution(name="normal", quantile=lambda u: law.inv_cdf(max(u, _U_MIN)), mean=mean, std=std)


def lognormal(mean: float, std: float) -> Distribution:
    """By the mean and standard deviation of the value itself, not of its logarithm."""
    sigma2 = math.log1p((std / mean) ** 2)
    law = NormalDist(math.log(mean) - sigma2 / 2, math.sqrt(sigma2))
    return Distribution(name="lognormal", quantile=lambda u: math.exp(law.inv_cdf(max(u, _U_MIN))), mean=mean, std=std)


def gamma(mean: float, std: float) -> Distribution:
    """By mean and standard deviation: skewed, with an exponential tail."""
    from scipy.special import gammaincinv  # noqa: PLC0415 - 0.1 s, only where a gamma law is used

    shape = (mean / std) ** 2
    return Distribution(
        name="gamma", quantile=lambda u: float(gammaincinv(shape, u)) * mean / shape, mean=mean, std=std
    )


def pareto(mean: float, std: float) -> Distribution:
    """Pareto of the first kind with these moments: minimum x_m and tail index a > 2."""
    ratio = (std / mean) ** 2
    index = 1 + math.sqrt(1 + 1 / ratio)
    minimum = mean * (index - 1) / index
    return Distribution(name="pareto", quantile=lambda u: minimum * (1 - u) ** (-1 / index), mean=mean, std=std)


def empirical(values: Sequence[float]) -> Distribution:
    """Linear interpolation between the sorted values."""
    ordered = sorted(values)
    if not ordered:
        raise ScenarioError("an empirical distribution needs at least one value", value=list(values))
    last = len(ordered) - 1

    def quantile(u: float) -> float:
        position = u * last
        index = min(int(position), max(last - 1, 0))
        upper = ordered[min(index + 1, last)]
        return ordered[index] + (upper - ordered[index]) * (position - index)

    segments = list(itertools.pairwise(ordered)) or [(ordered[0], ordered[0])]
    mean = sum((low + high) / 2 for low, high in segments) / len(segments)
    second = sum((low * low + low * high + high * high) / 3 for low, high in segments) / len(segments)
    return Distribution(name="empirical", quantile=quantile, mean=mean, std=math.sqrt(max(0.0, second - mean**2)))
