"""Jitter: the random part of a one-way delay."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

from testbed.core import distributions
from testbed.core.distributions import Distribution
from testbed.core.quantiles import QuantileTable
from testbed.network_models.losses.bernoulli import ATTEMPT_SHIFT
from testbed.network_models.origin import Origin
from testbed.network_models.ports.packet import Packet
from testbed.network_models.times_file import read_times
from testbed.network_models.wave import Wave
from testbed.scenarios.jitter import JitterConfig


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
    """The law with the configured mean and standard deviation, or of the configured values, in ns.

    Raises ScenarioError for a file of values that can't be read.
    """
    if config.mean is not None:
        return _LAWS[config.law](float(config.mean), float(config.std))
    return distributions.empirical(read_times(config.file) if config.file is not None else config.values or ())


@lru_cache(maxsize=64)  # a fleet's links share a few profiles; a table takes milliseconds and 35 kB
def jitter_table(config: JitterConfig) -> QuantileTable:
    """The law as an integer table, cut off at 0: a delay can't be negative."""
    law = jitter_law(config)
    return QuantileTable.from_quantile(lambda u: max(0.0, law.quantile(u)))


class Jitter:
    """One draw a message, or a packet; none at all without a config.

    A draw is keyed by the number of its message or packet on the link, or where jitter is correlated in time is the
    process's value at its instant. Messages and packets share the law and the process, not the draws.
    """

    __slots__ = ("_draws", "_latest", "_latest_ns", "_table", "_wave", "of_packets")

    def __init__(self, config: JitterConfig | None, origin: Origin) -> None:
        self._table = None if config is None else jitter_table(config)
        self._draws = origin.draws("jitter")
        self._latest = (-1, 0)  # message and its sending
        self._latest_ns = 0
        self.of_packets = config is not None and config.per == "packet"
        is_wave = config is not None and config.correlation_time > 0
        self._wave = Wave(config.correlation_time, origin, "jitter") if config is not None and is_wave else None

    def delay_ns(self, message: int, sent_ns: int) -> int:
        """Of the link's message number `message`, handed over at `sent_ns`, on top of the propagation delay."""
        if self._table is None:
            return 0
        if self._wave is not None:
            return self._table.value(self._wave.u32(sent_ns))
        return self._table.value(self._draws.u64(message) >> 32)

    def packet_delay_ns(self, packet: Packet, left_ns: int) -> int:
        """Of a packet whose last bit leaves at `left_ns`: its message's, or where each has its own that."""
        if not self.of_packets:
            key = packet.message, packet.sent_ns
            if key != self._latest:  # packets of one message come together
                self._latest, self._latest_ns = key, self.delay_ns(*key)
            return self._latest_ns
        return self.delay_ns(packet.attempt << ATTEMPT_SHIFT | packet.number, left_ns)
