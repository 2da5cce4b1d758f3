"""A server's KV cache as its scheduler counts it: who has claimed what."""

from __future__ import annotations

from typing import Protocol

from testbed.core.work import KvDemand


class KvMemory(Protocol):
    """What a scheduler asks of it."""

    @property
    def claimed_bytes(self) -> int:
        """By all resident sequences."""
        ...

    def fits_ever(self, demand: KvDemand) -> bool:
        """Whether a sequence could be served with the cache to itself."""
        ...

    def claim(self, request: int, demand: KvDemand, tokens: int) -> bool:
        """See to it that the sequence holds room for `tokens` positions; claims nothing and says so where it can't."""
        ...

    def release(self, request: int) -> None:
        """The sequence's room is free, if it had any."""
        ...


class FullReserve:
    """`reserve: full`: a sequence claims its full length with its first share, and keeps it to the end."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.claimed_bytes = 0
        self._claims: dict[int, int] = {}

    def fits_ever(self, demand: KvDemand) -> bool:
        return demand.full_bytes <= self.capacity_bytes

    def claim(self, request: int, demand: KvDemand, tokens: int) -> bool:
        assert tokens <= demand.max_tokens, "a sequence is no longer than it said"
        if request in self._claims:
            return True
        if self.claimed_bytes + demand.full_bytes > self.capacity_bytes:
            return False
        self._claims[request] = demand.full_bytes
        self.claimed_bytes += demand.full_bytes
        return True

    def release(self, request: int) -> None:
        self.claimed_bytes -= self._claims.pop(request, 0)
