"""Whose draws a piece's draws are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from testbed.core.rng import Draws, Stream
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
        return _stream(self.seed, f"{self.place}.{self.direction}.{name}")

    def draws(self, name: str) -> Draws:
        """The link's own draws of one purpose, keyed further by a counter."""
        return self.stream(name).of(self.entity)

    def link_stream(self, name: str) -> Stream:
        """As `stream`, the same for both directions."""
        return _stream(self.seed, f"{self.place}.{name}")

    def of(self, entity: int) -> Origin:
        """The same place, for somebody else's packets."""
        return replace(self, entity=entity)


@lru_cache(maxsize=256)  # a fleet's links share their streams
def _stream(seed: int, name: str) -> Stream:
    return Stream.named(seed, name)
