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

    listed: Sequence[Ids]
    is_real: bool
    ignore_eos: bool


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
    listed: I32Array  # number of its prompt among the group's listed ones; -1 for random ids
    kind: I16Array  # among the group's request kinds
    prompts: Sequence[GroupPrompts]  # by group
    random_ids: RandomIds
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
        listed = int(self.listed[row])
        if listed != NONE:
            return self.prompts[int(self.group[row])].listed[listed]
        return self.random_ids.of(int(self.entity[row]), int(self.counter[row]), int(self.prompt_tokens[row]))


def table_of(
    scenario: Scenario, vocab_size: int, parts: Sequence[tuple[Members, GroupRows, GroupPrompts]]
) -> RequestTable:
    """The rows of all groups in one table, numbered."""
    first_devices = np.cumsum([0, *(members.count for members, _, _ in parts)])
    rows = [part for _, part, _ in parts]
    arrival_ns = np.concatenate([part.arrival_ns for part in rows])
    device = np.concatenate([part.place + first for part, first in zip(rows, first_devices, strict=False)])
    counter = np.concatenate([part.counter for part in rows])
    order = np.lexsort((counter, device, arrival_ns))

    def column(name: str) -> I32Array:
        return np.concatenate([getattr(part, name) for part in rows])[order].astype(np.int32)

    entity = np.concatenate([members.entities[part.place] for members, part, _ in parts])
    group = np.repeat(np.arange(len(rows), dtype=np.int32), [len(part.place) for part in rows])
    blank = np.zeros(len(order), dtype=np.int32)
    return RequestTable(
        arrival_ns=arrival_ns[order],
        gap_ns=np.zeros(len(order), dtype=np.int64),
        counter=counter[order],
        entity=entity[order],
        device=device[order].astype(np.int32),
        group=group[order],
        prompt_tokens=column("prompt_tokens"),
        history_tokens=blank,
        max_output_tokens=column("output_tokens"),
        after=blank - 1,
        session=blank - 1,
        turn=blank,
        listed=column("listed"),
        kind=blank.astype(np.int16),
        prompts=[prompts for _, _, prompts in parts],
        random_ids=RandomIds(stream=Stream.named(scenario.seed, "prompt.ids"), vocab_size=vocab_size),
        choices=Stream.named(scenario.seed, "sampling"),
    )
