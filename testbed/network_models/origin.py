"""Whose draws a piece's draws are."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.core.rng import Stream
from testbed.network_models.transfer import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One direction of the link `entity` in a run with this seed: no other link can change its draws."""

    seed: int
    direction: Direction
    entity: int

    def stream(self, name: str) -> Stream:
        """The draws of one purpose, keyed further by entity and counter."""
        return Stream.named(self.seed, f"link.{self.direction}.{name}")

    def link_stream(self, name: str) -> Stream:
        """As `stream`, the same for both directions."""
        return Stream.named(self.seed, f"link.{name}")
