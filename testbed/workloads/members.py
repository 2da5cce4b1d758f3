"""The devices of one group, as the draws of their requests are keyed."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.core.rng import Stream, U64Array, entity_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """A group's devices by their place in it. Draws are keyed by place, or by the group's first for all of them."""

    seed: int
    entities: U64Array  # by place

    @classmethod
    def of(cls, group: str, count: int, seed: int) -> Members:
        return cls(seed=seed, entities=entity_keys(group, count))

    @property
    def count(self) -> int:
        return len(self.entities)

    def stream(self, name: str) -> Stream:
        """One purpose's draws."""
        return Stream.named(self.seed, name)
