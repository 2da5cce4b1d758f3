"""When an edge is down: on a schedule, at random, or both. A pure function of time, so that no event is needed."""

from __future__ import annotations

from bisect import bisect_right
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
    """Times at which one edge is down, both ways; two that touch or overlap are one."""

    __slots__ = (
        "_ends_ns",
        "_mean_down",
        "_mean_up",
        "_num_drawn",
        "_random_ns",
        "_scheduled",
        "_starts_ns",
        "_stream",
    )

    def __init__(self, edge: Edge, seed: int) -> None:
        one, other = sorted(edge.between)
        self._stream = Stream.named(seed, f"edge.{one}.{other}.failures")
        self._scheduled = sorted((down.at, down.until) for down in edge.down)
        self._mean_up = None if edge.failures is None else _exponential(edge.failures.mean_up)
        self._mean_down = None if edge.failures is None else _exponential(edge.failures.mean_down)
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
        if self._mean_up is None or self._mean_down is None:
            while self._scheduled:
                self._take(*self._scheduled.pop(0))
            return
        while not self._starts_ns or self._starts_ns[-1] <= time_ns:
            up_ns = max(1, self._mean_up.value(self._stream.u64(0, self._num_drawn) >> 32))
            down_ns = max(1, self._mean_down.value(self._stream.u64(1, self._num_drawn) >> 32))
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
