"""Chance that lasts: a uniform rank at every instant, alike at instants close together."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from math import exp, factorial
from statistics import NormalDist

from testbed.core.quantiles import QuantileTable
from testbed.network_models.origin import Origin

_NUM_LEVELS, _ROOT = 4, 2  # of so many independent levels the sum, over the root of their number, is as wide as one
_PAST_BLOCKS = 1 << 20  # before time 0
_MOST_CHANGES = 15  # in a block: more have a probability of 2**-44
_SIGMA = 1 << 40  # of the levels, in the integers they are kept in
_HALF = 1 << 31
# How many of 2**32 blocks have at most n changes, one being expected: Poisson's law.
_CHANGES = [round(sum(exp(-1) / factorial(k) for k in range(n + 1)) * 2**32) for n in range(_MOST_CHANGES)]


@lru_cache(maxsize=1)
def _half_normal() -> QuantileTable:
    """Of the absolute value of a normal variable with standard deviation `_SIGMA`."""
    law = NormalDist(0.0, _SIGMA)
    return QuantileTable.from_quantile(lambda u: law.inv_cdf((1 + u) / 2))


class Wave:
    """A stationary process of time whose value at each instant is uniform, as a rank of 32 bits.

    Four independent levels jump to new normal values at the instants of Poisson processes, on average `time_ns` apart;
    their sum z(t) is normal, and its autocorrelation over d is exp(-d / time_ns), exactly. The rank is that of z(t)
    [our own construction: as far as pairs of instants go, a mixture of Gaussian copulas of this mean correlation].

    Each value is a pure function of the key and the instant: no matter who asks, in which order, how often.
    """

    __slots__ = ("_changes", "_known", "_levels", "_time_ns")

    def __init__(self, time_ns: int, origin: Origin, name: str) -> None:
        self._time_ns = time_ns
        self._changes = origin.draws(f"{name}.change")
        self._levels = origin.draws(f"{name}.level")
        self._known: list[tuple[int, int, int]] | None = None  # per level: (from, until, value), what was found last

    def u32(self, time_ns: int) -> int:
        """The rank at an instant, from 0."""
        if self._known is None:
            self._known = [(0, 0, 0)] * _NUM_LEVELS
        for level, (from_ns, until_ns, _) in enumerate(self._known):
            if not from_ns <= time_ns < until_ns:
                self._known[level] = self._stay(level, time_ns)
        z = sum(value for _, _, value in self._known) // _ROOT
        half = _half_normal().rank(abs(z)) >> 1
        return _HALF + half if z >= 0 else _HALF - 1 - half

    def _stay(self, level: int, time_ns: int) -> tuple[int, int, int]:
        """The level's value at an instant, and an interval around it in which it stays so: perhaps not all of it."""
        block, offset_ns = divmod(time_ns, self._time_ns)
        until_ns = (block + 1) * self._time_ns
        changes = self._changes_of(level, block)
        later = bisect_right(changes, (offset_ns, _MOST_CHANGES))
        if later < len(changes):
            until_ns = block * self._time_ns + changes[later][0]
        while not later:
            block -= 1
            changes = self._changes_of(level, block)
            later = len(changes)
        from_ns, change = changes[later - 1]
        u64 = self._levels.u64(self._counter(level, block, change))
        size = _half_normal().value(u64 >> 32)
        return block * self._time_ns + from_ns, until_ns, size if u64 & 1 else -size

    def _changes_of(self, level: int, block: int) -> list[tuple[int, int]]:
        """When in this block the level jumps, ascending, each with its number among the block's."""
        first = self._counter(level, block, 0)
        num = bisect_right(_CHANGES, self._changes.u64(first) >> 32)
        times = [(self._changes.u64(first + change) * self._time_ns) >> 64 for change in range(1, num + 1)]
        return sorted(zip(times, range(1, num + 1), strict=True))

    @staticmethod
    def _counter(level: int, block: int, change: int) -> int:
        return ((block + _PAST_BLOCKS) * _NUM_LEVELS + level) * (_MOST_CHANGES + 1) + change
