"""Which server a new request goes to; it stays there, where its KV is."""

from __future__ import annotations

from collections.abc import Sequence


class LeastLoaded:
    """The server with the fewest requests under way; the lowest id among equals."""

    def choose(self, num_outstanding: Sequence[int]) -> int:
        return min(range(len(num_outstanding)), key=num_outstanding.__getitem__)
