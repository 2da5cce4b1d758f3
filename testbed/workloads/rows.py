"""All requests of one group as columns: when each comes, what it waits for, of which kind and how long it is.

Draws of a row are keyed by its device's entity and its counter, ``opening | turn << 40``, in streams of their own:
`kind` and `session.turns` (of openings), `session.think`, `lengths.prompt` and `lengths.output`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.core.registry import ARRIVALS
from testbed.core.rng import F64Array, I64Array
from testbed.scenarios.prompts import RandomPrompts
from testbed.scenarios.workload import RequestKind, Workload
from testbed.workloads.durations import duration_law
from testbed.workloads.instants import FAR_NS
from testbed.workloads.lengths import length_law
from testbed.workloads.members import Members
from testbed.workloads.mix import kinds_at
from testbed.workloads.openings import Openings, ragged

TURN_SHIFT = 40  # in a row's counter: its opening's number lies below, its turn above
NONE = -1
_NO_LIMIT = (1 << 31) - 1
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRows:
    """A row a request, openings in their order and each one's turns behind it. Rows are named by their places here."""

    place: I64Array  # of the device in its group
    opening: I64Array  # its counter
    turn: I64Array
    kind: I64Array
    arrival_ns: I64Array  # nominal, where it waits for another row
    after: I64Array  # the row that must have ended first; -1 for none
    gap_ns: I64Array  # from that row's end
    session: I64Array  # the row that opened the session; -1 for none
    prompt_tokens: I64Array  # history and new
    history_tokens: I64Array
    output_tokens: I64Array
    listed: I64Array  # number of the prompt in its kind's list; -1 for random ids

    def __len__(self) -> int:
        return len(self.place)

    @property
    def counter(self) -> I64Array:
        """With the device's entity, the key of a row's draws."""
        return self.opening | (self.turn << TURN_SHIFT)


def openings_of(workload: Workload, members: Members) -> Openings:
    """The arrival law's rows. Raises ScenarioError for a trace that can't be read."""
    arrivals = workload.arrivals
    found: Openings = ARRIVALS.load(arrivals.kind)(arrivals).openings(members)
    return found


def rows_of(
    workload: Workload, members: Members, openings: Openings, listed_lengths: Sequence[Sequence[int]]
) -> GroupRows:
    """A group's requests; `listed_lengths`, by kind, of prompts that are taken in turn, empty for random ids."""
    kinds = workload.request_kinds
    u = members.stream("kind").uniform_each(members.entities[openings.place], openings.counter)
    kind_O = kinds_at(kinds, openings.arrival_ns, u)
    drafts = _Drafts(kinds, members, openings, kind_O, _num_turns(kinds, members, openings, kind_O))
    new, listed = drafts.prompts(listed_lengths)
    outputs = drafts.outputs()
    history = drafts.history(new + outputs)
    kept = drafts.kept(history + new + outputs)
    if openings.history_tokens is not None:  # a trace's prompts are whole
        history, new = openings.history_tokens, new - openings.history_tokens
    return drafts.rows(kept, history=history, new=new, outputs=outputs, listed=listed)


def _num_turns(kinds: Sequence[RequestKind], members: Members, openings: Openings, kind_O: I64Array) -> I64Array:
    """Of each opening; 1 where its kind has no sessions."""
    turns_O = np.ones(len(openings), dtype=np.int64)
    stream = members.stream("session.turns")
    for number, kind in enumerate(kinds):
        if kind.session is not None:
            own = kind_O == number
            u = stream.uniform_each(members.entities[openings.place[own]], openings.counter[own])
            turns_O[own] = length_law(kind.session.turns).at(u)
    return turns_O


class _Drafts:
    """Every opening with all its turns, before turns that would be too long are left out."""

    def __init__(
        self,
        kinds: Sequence[RequestKind],
        members: Members,
        openings: Openings,
        kind_O: I64Array,
        turns_O: I64Array,
    ) -> None:
        self._kinds, self._members, self._openings = kinds, members, openings
        self._opening, self._turn = ragged(turns_O)
        self._kind = kind_O[self._opening]
        self._place, self._number = openings.place[self._opening], openings.counter[self._opening]
        self._entities, self._counter = members.entities[self._place], self._number | (self._turn << TURN_SHIFT)

    def prompts(self, listed_lengths: Sequence[Sequence[int]]) -> tuple[I64Array, I64Array]:
        """New tokens of each row, and which listed prompt it takes: a kind's rows take its prompts in turn."""
        count = len(self._turn)
        listed = np.full(count, NONE, dtype=np.int64)
        if self._openings.prompt_tokens is not None:
            return self._openings.prompt_tokens, listed
        new = np.empty(count, dtype=np.int64)
        for number, (kind, lengths) in enumerate(zip(self._kinds, listed_lengths, strict=True)):
            own = self._kind == number
            if lengths:
                listed[own] = np.arange(int(own.sum())) % len(lengths)
                new[own] = np.array(lengths, dtype=np.int64)[listed[own]]
            else:
                assert isinstance(kind.prompts, RandomPrompts), "all other kinds have prompts"
                new[own] = length_law(kind.prompts.length).at(self._uniform("lengths.prompt", own))
        return new, listed

    def outputs(self) -> I64Array:
        """The most that each row may generate."""
        if self._openings.output_tokens is not None:
            return self._openings.output_tokens
        return self._by_kind(lambda kind, own: _output_lengths(kind, self._uniform("lengths.output", own)))

    def history(self, tokens: I64Array) -> I64Array:
        """The sum of `tokens` over a session's earlier turns."""
        before = np.cumsum(tokens) - tokens
        found: I64Array = before - before[np.arange(len(tokens)) - self._turn]
        return found

    def kept(self, total: I64Array) -> BoolArray:
        """Which rows are asked: an opening always, a turn unless it would be longer than its session's `max_tokens`."""
        limits = [None if kind.session is None else kind.session.max_tokens for kind in self._kinds]
        most = np.array([_NO_LIMIT if limit is None else limit for limit in limits])
        found: BoolArray = (self._turn == 0) | (total <= most[self._kind])
        return found

    def rows(
        self, kept: BoolArray, *, history: I64Array, new: I64Array, outputs: I64Array, listed: I64Array
    ) -> GroupRows:
        """The rows that are asked, chained."""
        openings, turn, opening = self._openings, self._turn[kept], self._opening[kept]
        own_row = np.arange(len(turn), dtype=np.int64)
        follows = turn > 0
        gap_ns = np.where(follows, self._thinks()[kept], 0)
        if openings.gap_ns is not None:
            chained = ~follows & (self._number[kept] > 0)
            gap_ns = np.where(chained, openings.gap_ns[opening], gap_ns)
            follows = follows | chained
        has_session = np.array([kind.session is not None for kind in self._kinds])[self._kind[kept]]
        return GroupRows(
            place=self._place[kept],
            opening=self._number[kept],
            turn=turn if openings.turn is None else openings.turn,
            kind=self._kind[kept],
            arrival_ns=_nominal(openings.arrival_ns[opening], gap_ns, follows),
            after=np.where(follows, own_row - 1, NONE),
            gap_ns=gap_ns,
            session=np.where(has_session, own_row - turn, NONE) if openings.session is None else openings.session,
            prompt_tokens=(history + new)[kept],
            history_tokens=history[kept],
            output_tokens=outputs[kept],
            listed=listed[kept],
        )

    def _thinks(self) -> I64Array:
        return self._by_kind(lambda kind, own: _think_times(kind, self._uniform("session.think", own)))

    def _by_kind(self, draw: Callable[[RequestKind, BoolArray], I64Array]) -> I64Array:
        values = np.empty(len(self._turn), dtype=np.int64)
        for number, kind in enumerate(self._kinds):
            own = self._kind == number
            values[own] = draw(kind, own)
        return values

    def _uniform(self, stream: str, own: BoolArray) -> F64Array:
        return self._members.stream(stream).uniform_each(self._entities[own], self._counter[own])


def _output_lengths(kind: RequestKind, u: F64Array) -> I64Array:
    assert kind.output_tokens is not None, "checked when the workload was read"
    return length_law(kind.output_tokens).at(u)


def _think_times(kind: RequestKind, u: F64Array) -> I64Array:
    if kind.session is None:
        return np.zeros(len(u), dtype=np.int64)
    return np.minimum(duration_law(kind.session.think).at(u), FAR_NS).astype(np.int64)


def _nominal(arrival_ns: I64Array, gap_ns: I64Array, follows: BoolArray) -> I64Array:
    """The arrival at the start of each chain, and the gaps since: as if answers took no time."""
    root = np.maximum.accumulate(np.where(follows, 0, np.arange(len(follows))))
    own_gap_ns = np.where(follows, gap_ns, 0)
    gaps, rough = np.cumsum(own_gap_ns), np.cumsum(own_gap_ns.astype(np.float64))
    is_far = arrival_ns[root] + (rough - rough[root]) >= FAR_NS  # out of virtual time, and perhaps of 64 bits
    return np.where(is_far, FAR_NS, arrival_ns[root] + gaps - gaps[root])
