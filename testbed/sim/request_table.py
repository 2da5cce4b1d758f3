"""All requests of a run as columns of numbers; a request itself is made when it is asked for.

Rows are numbered by (nominal arrival, device, the device's count), the same in every engine. Some rows wait for
another: row i with ``after[i] >= 0`` arrives `gap_ns[i]` after that row has ended, whatever became of it. Its
`arrival_ns` is nominal: that of the row at the start of its chain and the gaps since, as if answers took no time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.core.cast import RequestFacts
from testbed.core.rng import I64Array, Stream, U64Array
from testbed.scenarios.schema import Scenario
from testbed.sim.prompts import Ids, RandomIds
from testbed.workloads.members import Members
from testbed.workloads.rows import GroupRows

I32Array = npt.NDArray[np.int32]
I16Array = npt.NDArray[np.int16]
NONE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as its device gets it. `prompt` is None in modelled groups, which need its length only."""

    request: int
    group: int
    device: int
    arrival_ns: int
    num_prompt_tokens: int
    prompt: Ids | None
    max_output_tokens: int
    ignore_eos: bool
    sampling_seed: int  # of its tokens' choice, where that is random
    kind: int = 0  # among the group's request kinds
    session: int = NONE  # the request that opened its session; -1 where it is no part of one
    turn: int = 0  # in its session
    history_tokens: int = 0  # of its prompt: what the session's earlier turns asked and were answered, as configured


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPrompts:
    """How a group's prompts are had."""

    kinds: Sequence[str]  # names; one that is empty where the workload lists none
    listed: Sequence[Sequence[Ids]]  # by kind
    is_real: bool
    ignore_eos: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPart:
    """One group's requests, before they have numbers."""

    members: Members
    rows: GroupRows
    prompts: GroupPrompts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestTable:
    """A row a request: under 100 bytes each."""

    arrival_ns: I64Array
    gap_ns: I64Array  # after the end of row `after`
    counter: I64Array  # with `entity`, the key of its draws
    entity: U64Array
    device: I32Array
    group: I32Array
    prompt_tokens: I32Array  # the whole prompt: `history_tokens` of it are old, the rest new
    history_tokens: I32Array
    max_output_tokens: I32Array
    after: I32Array  # the row that must have ended first; -1 for none. A row is before at most one other
    session: I32Array  # the row that opened the session; -1 for none
    turn: I32Array  # in the session
    listed: I32Array  # number of its prompt among its kind's listed ones; -1 for random ids
    kind: I16Array  # among the group's request kinds
    prompts: Sequence[GroupPrompts]  # by group
    random_ids: RandomIds
    answer_ids: RandomIds  # stand for earlier answers in a session's prompts
    choices: Stream  # of sampling seeds

    def __len__(self) -> int:
        return len(self.arrival_ns)

    def __iter__(self) -> Iterator[Request]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> Request:
        """A row as it is planned."""
        return self.arriving(row, int(self.arrival_ns[row]))

    @property
    def num_bytes(self) -> int:
        """Of all columns."""
        columns = (getattr(self, name) for name in self.__slots__)
        return sum(column.nbytes for column in columns if isinstance(column, np.ndarray))

    @property
    def facts(self) -> RequestFacts:
        """What results tell of requests beside their events."""
        names = sorted({name for prompts in self.prompts for name in prompts.kinds if name})
        codes = [[names.index(name) if name else NONE for name in prompts.kinds] for prompts in self.prompts]
        kind = np.full(len(self), NONE, dtype=np.int16)
        for group, code in enumerate(codes):
            own = self.group == group
            kind[own] = np.array(code, dtype=np.int16)[self.kind[own]]
        return RequestFacts(
            kind_names=names, kind=kind, session=self.session, turn=self.turn, history_tokens=self.history_tokens
        )

    def arriving(self, row: int, arrival_ns: int) -> Request:
        """A row whose time has come; its prompt, where its group is real, is put together now."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        group, entity, counter = int(self.group[row]), int(self.entity[row]), int(self.counter[row])
        return Request(
            request=row,
            group=group,
            device=int(self.device[row]),
            arrival_ns=arrival_ns,
            num_prompt_tokens=int(self.prompt_tokens[row]),
            prompt=self._prompt(row) if self.prompts[group].is_real else None,
            max_output_tokens=int(self.max_output_tokens[row]),
            ignore_eos=self.prompts[group].ignore_eos,
            sampling_seed=self.choices.u64(entity, counter) >> 1,  # torch takes 63 bits
            kind=int(self.kind[row]),
            session=int(self.session[row]),
            turn=int(self.turn[row]),
            history_tokens=int(self.history_tokens[row]),
        )

    def _prompt(self, row: int) -> Ids:
        """What the session's earlier turns asked and were answered, as far as there are any, and what is new.

        Answers are not known beforehand: random ids of the configured number stand for them.
        """
        if self.turn[row] == 0:
            return self._new_prompt(row)
        before = int(self.after[row])
        answer = self.answer_ids.of(*self._key(before), int(self.max_output_tokens[before]))
        return (*self._prompt(before), *answer, *self._new_prompt(row))

    def _new_prompt(self, row: int) -> Ids:
        listed = int(self.listed[row])
        if listed != NONE:
            return self.prompts[int(self.group[row])].listed[int(self.kind[row])][listed]
        return self.random_ids.of(*self._key(row), int(self.prompt_tokens[row] - self.history_tokens[row]))

    def _key(self, row: int) -> tuple[int, int]:
        return int(self.entity[row]), int(self.counter[row])


def table_of(scenario: Scenario, vocab_size: int, parts: Sequence[GroupPart]) -> RequestTable:
    """The rows of all groups in one table, numbered."""
    first_device = np.cumsum([0, *(part.members.count for part in parts)])
    first_row = np.cumsum([0, *(len(part.rows) for part in parts)])
    device = np.concatenate([part.rows.place + first for part, first in zip(parts, first_device, strict=False)])
    order = np.lexsort((_all(parts, "turn"), _all(parts, "opening"), device, _all(parts, "arrival_ns")))
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))

    def small(name: str) -> I32Array:
        return _all(parts, name)[order].astype(np.int32)

    def reference(name: str) -> I32Array:
        """A column of rows of the own group, as their numbers."""
        columns = [getattr(part.rows, name) for part in parts]
        rows = np.concatenate([np.where(c < 0, NONE, c + first) for c, first in zip(columns, first_row, strict=False)])
        return np.where(rows < 0, NONE, number[rows])[order].astype(np.int32)

    return RequestTable(
        arrival_ns=_all(parts, "arrival_ns")[order],
        gap_ns=_all(parts, "gap_ns")[order],
        counter=_all(parts, "counter")[order],
        entity=np.concatenate([part.members.entities[part.rows.place] for part in parts])[order],
        device=device[order].astype(np.int32),
        group=np.repeat(np.arange(len(parts), dtype=np.int32), np.diff(first_row))[order],
        prompt_tokens=small("prompt_tokens"),
        history_tokens=small("history_tokens"),
        max_output_tokens=small("output_tokens"),
        after=reference("after"),
        session=reference("session"),
        turn=small("turn"),
        listed=small("listed"),
        kind=small("kind").astype(np.int16),
        prompts=[part.prompts for part in parts],
        random_ids=RandomIds(stream=Stream.named(scenario.seed, "prompt.ids"), vocab_size=vocab_size),
        answer_ids=RandomIds(stream=Stream.named(scenario.seed, "answer.ids"), vocab_size=vocab_size),
        choices=Stream.named(scenario.seed, "sampling"),
    )


def _all(parts: Sequence[GroupPart], name: str) -> I64Array:
    """One column of all groups."""
    return np.concatenate([getattr(part.rows, name) for part in parts])
