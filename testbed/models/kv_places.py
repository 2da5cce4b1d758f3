"""Which place of a shared KV store each token of each session occupies; bookkeeping only, no tensors.

Places are handed out in blocks, so that sessions of different lengths share one store without moving each other's
keys and values. Block 0 is never handed out: its places stay zero and pad ragged reads.
"""

from __future__ import annotations

import numpy as np

BLOCK_TOKENS = 16
_PAD_BLOCKS = 1


class SessionPlaces:
    """The places of one session: position w lies at ``table[w]`` for held_from <= w < reserved."""

    __slots__ = ("held_from", "reserved", "table")

    def __init__(self) -> None:
        self.table = np.zeros(BLOCK_TOKENS, dtype=np.int64)
        self.held_from = 0
        self.reserved = 0

    def blocks(self, start: int, stop: int) -> list[int]:
        """The blocks behind positions [start, stop), both multiples of the block size."""
        return [int(place) // BLOCK_TOKENS for place in self.table[start:stop:BLOCK_TOKENS]]


class PlaceAllocator:
    """Hands out blocks of places; freed blocks are used again before the store grows.

    Per new token the work is constant (amortised); nothing depends on the length of the history.
    """

    def __init__(self) -> None:
        self._free: list[int] = []
        self._num_blocks = _PAD_BLOCKS

    @property
    def num_places(self) -> int:
        """Places the store must hold: the highest number of blocks ever in use at once."""
        return self._num_blocks * BLOCK_TOKENS

    @property
    def used_places(self) -> int:
        """Places that belong to sessions now, in whole blocks."""
        return (self._num_blocks - _PAD_BLOCKS - len(self._free)) * BLOCK_TOKENS

    def reserve(self, places: SessionPlaces, tokens: int) -> None:
        """Gives the session places for its positions below ``tokens``."""
        while places.reserved < tokens:
            block = self._free.pop() if self._free else self._new_block()
            stop = places.reserved + BLOCK_TOKENS
            if stop > len(places.table):
                places.table = np.concatenate([places.table, np.zeros_like(places.table)])
            places.table[places.reserved : stop] = np.arange(BLOCK_TOKENS) + block * BLOCK_TOKENS
            places.reserved = stop

    def forget_before(self, places: SessionPlaces, position: int) -> None:
        """Takes back the blocks that lie wholly before ``position`` (left behind by a sliding window)."""
        keep_from = position // BLOCK_TOKENS * BLOCK_TOKENS
        if keep_from > places.held_from:
            self._free.extend(places.blocks(places.held_from, min(keep_from, places.reserved)))
            places.held_from = keep_from

    def release_from(self, places: SessionPlaces, position: int) -> None:
        """Takes back the blocks that lie wholly at or after ``position``."""
        keep_to = max(-(-position // BLOCK_TOKENS) * BLOCK_TOKENS, places.held_from)
        if keep_to < places.reserved:
            self._free.extend(places.blocks(keep_to, places.reserved))
            places.reserved = keep_to
        if position == 0:
            places.held_from = places.reserved = 0

    def _new_block(self) -> int:
        self._num_blocks += 1
        return self._num_blocks - 1
