"""Losses that follow the order of transmissions: each call is about the next ones on the link."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

BLOCK = 512  # transmissions decided at a time


class OrderedLoss(ABC):
    """Which transmissions are lost depends on their place among all transmissions of the link and direction.

    So both resolutions must ask about every transmission once, in the order in which packets leave.
    """

    __slots__ = ("_decided_until", "_next", "_upcoming")

    def __init__(self) -> None:
        self._next = 0  # place of the next transmission
        self._decided_until = 0
        self._upcoming: list[int] | None = None  # places that will be lost, latest first

    @abstractmethod
    def _decide(self, first: int, count: int) -> list[int]:
        """Those of the places from `first` on that are lost, ascending; asked for one block after the other."""

    def lost(self, packets: Sequence[int], attempt: int) -> list[int]:
        """Those of `packets`, the link's next transmissions, that are lost."""
        first = self._next
        self._next += len(packets)
        return [packets[place - first] for place in self._pass(self._next)]

    def is_lost(self, packet: int, attempt: int, time_ns: int) -> bool:
        """Whether the link's next transmission is lost."""
        self._next += 1
        return bool(self._pass(self._next))

    def _pass(self, stop: int) -> list[int]:
        """The lost places up to `stop` that nobody has asked about."""
        if stop > self._decided_until:
            first, count = self._decided_until, max(BLOCK, stop - self._decided_until)
            self._upcoming = self._decide(first, count)[::-1] + (self._upcoming or [])
            self._decided_until = first + count
        upcoming = self._upcoming or []
        found = []
        while upcoming and upcoming[-1] < stop:
            found.append(upcoming.pop())
        return found
