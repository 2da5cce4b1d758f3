"""What has arrived: whole numbers as ranges, as selective acknowledgements tell them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Ranges:
    """A set of non-negative ints, kept as ascending ranges [start, stop) with gaps between them."""

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Put [start, stop) in; the parts of it that were not there before, ascending."""
        first = bisect_left(self._stops, start)  # the first range that touches or follows
        last = bisect_right(self._starts, stop)  # one past the last range that touches
        fresh, edge = [], start
        for index in range(first, last):
            if self._starts[index] > edge:
                fresh.append((edge, self._starts[index]))
            edge = max(edge, self._stops[index])
        if edge < stop:
            fresh.append((edge, stop))
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]
        return fresh

    def keep_highest(self, num_ranges: int) -> None:
        """Forget all ranges but the highest few."""
        if len(self._starts) > num_ranges:
            del self._starts[:-num_ranges]
            del self._stops[:-num_ranges]

    @property
    def prefix(self) -> int:
        """The smallest number that is not in it."""
        return self._stops[0] if self._starts and self._starts[0] == 0 else 0

    def nth_highest(self, n: int) -> int:
        """The n-th largest member above the prefix, -1 where there are fewer."""
        for start, stop in zip(reversed(self._starts), reversed(self._stops), strict=True):
            if start == 0:
                break
            if stop - start >= n:
                return stop - n
            n -= stop - start
        return -1

    def overlaps(self, start: int, stop: int) -> bool:
        """Whether any of [start, stop) is in it."""
        index = bisect_right(self._stops, start)
        return index < len(self._starts) and self._starts[index] < stop

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Every range, ascending."""
        return tuple(zip(self._starts, self._stops, strict=True))

    def __len__(self) -> int:
        return len(self._starts)
