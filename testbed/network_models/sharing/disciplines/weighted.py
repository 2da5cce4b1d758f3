"""All at once, each at a share of its own rate."""

from __future__ import annotations

from typing import Literal

from testbed.network_models.sharing.air import NOBODY, Grants
from testbed.network_models.sharing.member import Member
from testbed.scenarios.pieces import DisciplineConfig


class Weighted:
    """Generalised processor sharing of air time: of the members with a job, each has its weight's share of the medium.

    Demers, Keshav, Shenker 1989; Parekh, Gallager 1993. What a share is worth is the member's own affair: in an outage
    of its own it keeps the share and sends nothing.
    """

    class Config(DisciplineConfig):
        kind: Literal["weighted"] = "weighted"

        @property
        def takes_weights(self) -> bool:
            return True

    def __init__(self, config: DisciplineConfig) -> None:
        self._weights: dict[Member, int] = {}  # of the members with a job
        self._grants = NOBODY

    def came(self, member: Member) -> None:
        if member not in self._weights:
            self._weights[member] = member.weight
            self._share()

    def ended(self, member: Member) -> None:
        if not member.jobs:
            del self._weights[member]
            self._share()

    def grants(self, now_ns: int) -> Grants:
        return self._grants

    def _share(self) -> None:
        self._grants = Grants(dict(self._weights), sum(self._weights.values())) if self._weights else NOBODY


class ProcessorSharing(Weighted):
    """Equal weights: n members with a job have an n-th of the air each."""

    class Config(DisciplineConfig):
        kind: Literal["processor-sharing"] = "processor-sharing"
