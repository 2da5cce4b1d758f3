"""One packet each in turn."""

from __future__ import annotations

from collections import deque
from typing import Literal

from testbed.network_models.sharing.air import NOBODY, Grants
from testbed.network_models.sharing.member import Member
from testbed.scenarios.pieces import DisciplineConfig


class RoundRobin:
    """Members with a packet send one in turn, so that all have the same rate and the slowest sets it.

    What carrier sensing gives stations that always have something to send (Heusse et al. 2003, "Performance anomaly of
    802.11b"), without its random order.
    """

    class Config(DisciplineConfig):
        kind: Literal["round-robin"] = "round-robin"

    def __init__(self, config: Config) -> None:
        self._ring: deque[Member] = deque()
        self._grants = NOBODY

    def came(self, member: Member) -> None:
        if len(member.jobs) == 1:
            self._ring.append(member)

    def ended(self, member: Member) -> None:
        self._ring.popleft()
        if member.jobs:
            self._ring.append(member)

    def grants(self, now_ns: int) -> Grants:
        if not self._ring:
            self._grants = NOBODY
        elif self._ring[0] not in self._grants.weights:
            self._grants = Grants({self._ring[0]: 1}, 1)
        return self._grants
