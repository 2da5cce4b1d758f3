"""First come, first served."""

from __future__ import annotations

from collections import deque
from typing import Literal

from testbed.network_models.sharing.air import NOBODY, Grants
from testbed.network_models.sharing.member import Member
from testbed.scenarios.pieces import DisciplineConfig


class Fifo:
    """One queue for all: jobs leave in the order in which they came, each at its member's own rate."""

    class Config(DisciplineConfig):
        kind: Literal["fifo"] = "fifo"

    def __init__(self, config: Config) -> None:
        self._queue: deque[Member] = deque()  # a member for each of its jobs
        self._grants = NOBODY

    def came(self, member: Member) -> None:
        self._queue.append(member)

    def ended(self, member: Member) -> None:
        self._queue.popleft()

    def grants(self, now_ns: int) -> Grants:
        if not self._queue:
            self._grants = NOBODY
        elif self._queue[0] not in self._grants.weights:
            self._grants = Grants({self._queue[0]: 1}, 1)
        return self._grants
