"""Jitter: the random part of a message's one-way delay."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

from testbed.core import distributions
from testbed.core.distributions import Distribution
from testbed.core.rng import QuantileTable
from testbed.network_models.origin import Origin
from testbed.scenarios.profiles import JitterConfig


def _uniform(mean_ns: float, std_ns: float) -> Distribution:
    half_width_ns = math.sqrt(3) * std_ns
    return distributions.uniform(mean_ns - half_width_ns, mean_ns + half_width_ns)


# A law's name in a profile -> the law with this mean and standard deviation.
_LAWS: Mapping[str, Callable[[float, float], Distribution]] = MappingProxyType(
    {
        "constant": lambda mean_ns, _: distributions.constant(mean_ns),
        "uniform": _uniform,
        "exponential": lambda mean_ns, _: distributions.exponential(mean_ns),
        "normal": distributions.normal,
        "lognormal": distributions.lognormal,
        "gamma": distributions.gamma,
        "pareto": distributions.pareto,
    }
)


def jitter_law(config: JitterConfig) -> Distribution:
    """The named law with the configured mean and standard deviation, in ns."""
    return _LAWS[config.law](float(config.mean), float(config.std))


@lru_cache(maxsize=64)  # a fleet's links share a few profiles; a table takes milliseconds and 32 kB
def jitter_table(config: JitterConfig) -> QuantileTable:
    """The law as an integer table, cut off at 0: a delay can't be negative."""
    law = jitter_law(config)
    return QuantileTable.from_quantile(lambda u: max(0.0, law.quantile(u)))


class Jitter:
    """One draw a message, keyed by the message's number on its link; none at all without a config."""

    __slots__ = ("_entity", "_stream", "_table")

    def __init__(self, config: JitterConfig | None, origin: Origin) -> None:
        self._table = None if config is None else jitter_table(config)
        self._stream = origin.stream("jitter")
        self._entity = origin.entity

    def delay_ns(self, message: int) -> int:
        """Of the link's message number `message`, on top of the propagation delay."""
        if self._table is None:
            return 0
        return self._table.value(self._stream.u64(self._entity, message) >> 32)
