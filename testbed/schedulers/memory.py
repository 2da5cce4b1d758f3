"""A server's KV cache as its scheduler counts it: who has claimed what."""

from __future__ import annotations

from typing import Protocol

from testbed.core.work import KvDemand

NO_SESSION = -1


class KvMemory(Protocol):
    """What a scheduler asks of it."""

    @property
    def claimed_bytes(self) -> int:
        """By all resident sequences."""
        ...

    def fits_ever(self, demand: KvDemand) -> bool:
        """Whether a sequence could be served with the cache to itself."""
        ...

    def claim(self, request: int, demand: KvDemand, tokens: int, session: int = NO_SESSION) -> list[int] | None:
        """See to it that the sequence holds room for `tokens` positions, with what its session has parked.

        The sessions that were evicted for it; None where there is no room, and nothing has changed.
        """
        ...

    def release(self, request: int) -> int:
        """The sequence's room is free; its bytes, 0 if it had none."""
        ...

    def park(self, request: int, session: int) -> None:
        """The sequence has ended, and what it held may stay for its session."""
        ...

    def check(self) -> None:
        """An internal error where what is claimed does not add up."""
        ...


class FullReserve:
    """`reserve: full`: a sequence claims its full length with its first share, and keeps it to the end."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.claimed_bytes = 0
        self._claims: dict[int, int] = {}

    def fits_ever(self, demand: KvDemand) -> bool:
        return demand.full_bytes <= self.capacity_bytes

    def claim(self, request: int, demand: KvDemand, tokens: int, session: int = NO_SESSION) -> list[int] | None:
        assert tokens <= demand.max_tokens, "a sequence is no longer than it said"
        if request in self._claims:
            return []
        if self.claimed_bytes + demand.full_bytes > self.capacity_bytes:
            return None
        self._claims[request] = demand.full_bytes
        self.claimed_bytes += demand.full_bytes
        return []

    def release(self, request: int) -> int:
        freed_bytes = self._claims.pop(request, 0)
        self.claimed_bytes -= freed_bytes
        return freed_bytes

    def park(self, request: int, session: int) -> None:
        self.release(request)  # full lengths stay for nobody

    def check(self) -> None:
        assert sum(self._claims.values()) == self.claimed_bytes <= self.capacity_bytes, "claimed KV does not add up"


class PagedBlocks:
    """`reserve: blocks`: a block holds `block_tokens` positions of one layer; a sequence claims them as it grows.

    A sequence of n positions behind its cut of k layers holds ``k ceil(n / block_tokens)`` blocks. What a session's
    last turn held can stay *parked*: it is nobody's claim, and is evicted, the session parked longest ago first, as
    soon as a claim needs more than the free blocks and would have enough with the parked ones. Blocks claimed, parked
    and free add up to all there are.
    """

    def __init__(self, *, num_blocks: int, block_tokens: int, block_bytes: int) -> None:
        self.num_blocks = num_blocks
        self.free_blocks = num_blocks
        self._block_tokens = block_tokens
        self._block_bytes = block_bytes
        self._held: dict[int, int] = {}
        self._parked: dict[int, int] = {}  # by session, the one parked longest ago first
        self._num_parked = 0

    @property
    def claimed_bytes(self) -> int:
        return (self.num_blocks - self.free_blocks - self._num_parked) * self._block_bytes

    def fits_ever(self, demand: KvDemand) -> bool:
        return self._blocks(demand, demand.max_tokens) <= self.num_blocks

    def claim(self, request: int, demand: KvDemand, tokens: int, session: int = NO_SESSION) -> list[int] | None:
        own = self._parked.get(session, 0)
        held = self._held.get(request, 0) + own
        more = self._blocks(demand, tokens) - held
        if more > self.free_blocks + self._num_parked - own:
            return None
        if own:
            self._unpark(session)
        evicted = []
        while more > self.free_blocks:
            evicted.append(next(iter(self._parked)))
            self.free_blocks += self._unpark(evicted[-1])
        self._held[request] = held + more
        self.free_blocks -= more
        return evicted

    def release(self, request: int) -> int:
        blocks = self._held.pop(request, 0)
        self.free_blocks += blocks
        return blocks * self._block_bytes

    def park(self, request: int, session: int) -> None:
        """The sequence has ended, and what it held stays to be found by its session's next turn."""
        if session in self._parked:
            self.free_blocks += self._unpark(session)
        blocks = self._held.pop(request)
        self._parked[session] = blocks
        self._num_parked += blocks

    def check(self) -> None:
        blocks = sum(self._held.values()) + sum(self._parked.values()) + self.free_blocks
        assert blocks == self.num_blocks, "a KV block is lost or doubled"
        assert self.free_blocks >= 0, "more KV blocks are claimed than there are"

    def _unpark(self, session: int) -> int:
        blocks = self._parked.pop(session)
        self._num_parked -= blocks
        return blocks

    def _blocks(self, demand: KvDemand, tokens: int) -> int:
        return demand.num_layers * -(-tokens // self._block_tokens)
