"""When an edge, or a server, is down: on a schedule, at random, or both.

A pure function of time, so that no event is needed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import lru_cache

from testbed.core import distributions
from testbed.core.quantiles import QuantileTable
from testbed.core.rng import Stream
from testbed.network_models.rates.segments import FOREVER
from testbed.scenarios.topology import Edge


@lru_cache(maxsize=64)
def _exponential(mean_ns: int) -> QuantileTable:
    return QuantileTable.from_quantile(distributions.exponential(float(mean_ns)).quantile)


class Failures:
    """Times at which one thing is down; two that touch or overlap are one.

    `scheduled` are (from, until); number i at random is up for the first and down for the second time that `draw(i)`
    gives, both at least 1 ns.
    """

    __slots__ = ("_draw", "_ends_ns", "_num_drawn", "_random_ns", "_scheduled", "_starts_ns")

    def __init__(self, scheduled: Iterable[tuple[int, int]], draw: Callable[[int], tuple[int, int]] | None) -> None:
        self._scheduled = sorted(scheduled)
        self._draw = draw
        self._num_drawn = 0
        self._random_ns = 0  # until when random failures are known
        self._starts_ns: list[int] = []
        self._ends_ns: list[int] = []

    def is_down(self, time_ns: int) -> bool:
        """Down from the instant of a failure on; up again at the instant of its repair."""
        self._know(time_ns)
        place = bisect_right(self._starts_ns, time_ns) - 1
        return place >= 0 and time_ns < self._ends_ns[place]

    def next_failure_ns(self, time_ns: int) -> int:
        """The first after this instant."""
        self._know(time_ns)
        place = bisect_right(self._starts_ns, time_ns)
        return self._starts_ns[place] if place < len(self._starts_ns) else FOREVER

    def next_change_ns(self, time_ns: int) -> int:
        """The first failure or repair after this instant."""
        self._know(time_ns)
        place = bisect_right(self._starts_ns, time_ns) - 1
        if place >= 0 and time_ns < self._ends_ns[place]:
            return self._ends_ns[place]
        return self.next_failure_ns(time_ns)

    def total_ns(self, until_ns: int) -> int:
        """Spent down until this instant."""
        self._know(until_ns)
        pairs = zip(self._starts_ns, self._ends_ns, strict=True)
        return sum(min(end_ns, until_ns) - start_ns for start_ns, end_ns in pairs if start_ns < until_ns)

    def _know(self, time_ns: int) -> None:
        """All failures up to this instant, and one beyond it, are in the lists."""
        if self._draw is None:
            while self._scheduled:
                self._take(*self._scheduled.pop(0))
            return
        while not self._starts_ns or (self._starts_ns[-1] <= time_ns and self._ends_ns[-1] < FOREVER):
            up_ns, down_ns = self._draw(self._num_drawn)
            self._num_drawn += 1
            at_ns = self._random_ns + up_ns
            self._random_ns = at_ns + down_ns
            while self._scheduled and self._scheduled[0][0] <= at_ns:
                self._take(*self._scheduled.pop(0))
            self._take(at_ns, self._random_ns)

    def _take(self, at_ns: int, until_ns: int) -> None:
        """Failures come in the order of their beginnings."""
        if self._ends_ns and at_ns <= self._ends_ns[-1]:
            self._ends_ns[-1] = max(self._ends_ns[-1], until_ns)
            return
        self._starts_ns.append(at_ns)
        self._ends_ns.append(until_ns)


def edge_failures(edge: Edge, seed: int) -> Failures:
    """Of an edge, both ways."""
    scheduled = [(down.at, down.until) for down in edge.down]
    if edge.failures is None:
        return Failures(scheduled, None)
    one, other = sorted(edge.between)
    stream = Stream.named(seed, f"edge.{one}.{other}.failures")
    mean_up, mean_down = _exponential(edge.failures.mean_up), _exponential(edge.failures.mean_down)

    def draw(number: int) -> tuple[int, int]:
        return (
            max(1, mean_up.value(stream.u64(0, number) >> 32)),
            max(1, mean_down.value(stream.u64(1, number) >> 32)),
        )

    return Failures(scheduled, draw)
