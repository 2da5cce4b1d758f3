"""Whose draws a piece's draws are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from testbed.core.rng import Stream
from testbed.network_models.transfer import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One direction of the link `entity` in a run with this seed: no other link can change its draws.

    On an edge that many share, `place` names the edge and `entity` says whose packets they are.
    """

    seed: int
    direction: Direction
    entity: int
    place: str = "link"

    def stream(self, name: str) -> Stream:
        """The draws of one purpose, keyed further by entity and counter."""
        return Stream.named(self.seed, f"{self.place}.{self.direction}.{name}")

    def of(self, entity: int) -> Origin:
        """The same place, for somebody else's packets."""
        return replace(self, entity=entity)
