"""The KV store's bookkeeping: no two sessions ever share a place, and nothing is lost."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from testbed.models.kv_places import BLOCK_TOKENS, PlaceAllocator, SessionPlaces


class Places(RuleBasedStateMachine):
    """Random sessions that grow, slide, shrink and end, against plain dictionaries of position -> place."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator = PlaceAllocator()
        self.sessions: list[SessionPlaces] = []
        self.lengths: list[int] = []
        self.peak_blocks = 0

    @rule(tokens=st.integers(1, 70))
    def open(self, tokens: int) -> None:
        self.sessions.append(SessionPlaces())
        self.lengths.append(0)
        self._grow(-1, tokens)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), tokens=st.integers(1, 70))
    def grow(self, data: st.DataObject, tokens: int) -> None:
        index = data.draw(st.integers(0, len(self.sessions) - 1))
        before = self.sessions[index].table[: self.lengths[index]].copy()
        self._grow(index, self.lengths[index] + tokens)
        assert (self.sessions[index].table[: len(before)] == before).all()  # tokens never move

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def slide(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.sessions) - 1))
        position = data.draw(st.integers(0, self.lengths[index]))
        before = self.sessions[index].held_from
        self.allocator.forget_before(self.sessions[index], position)
        assert self.sessions[index].held_from <= position or self.sessions[index].held_from == before

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def shrink(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.sessions) - 1))
        length = data.draw(st.integers(self.sessions[index].held_from, self.lengths[index]))
        self.allocator.release_from(self.sessions[index], length)
        self.lengths[index] = length

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.sessions) - 1))
        self.allocator.release_from(self.sessions.pop(index), 0)
        self.lengths.pop(index)

    @invariant()
    def every_place_has_one_owner_and_none_is_padding(self) -> None:
        held = [int(place) for item in self.sessions for place in item.table[item.held_from : item.reserved]]
        assert len(held) == len(set(held)) == self.allocator.used_places
        assert all(BLOCK_TOKENS <= place < self.allocator.num_places for place in held)

    @invariant()
    def the_store_never_outgrows_its_peak_use(self) -> None:
        self.peak_blocks = max(self.peak_blocks, self.allocator.used_places // BLOCK_TOKENS)
        assert self.allocator.num_places == (self.peak_blocks + 1) * BLOCK_TOKENS

    def _grow(self, index: int, tokens: int) -> None:
        self.allocator.reserve(self.sessions[index], tokens)
        self.lengths[index] = tokens
        assert self.sessions[index].reserved >= tokens


TestPlaces = Places.TestCase
