"""When a group's requests come: what an arrival law gives, before kinds, turns and lengths are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from testbed.core.rng import I64Array
from testbed.workloads.members import Members


@dataclass(frozen=True, slots=True, kw_only=True)
class Openings:
    """A row a request that opens something: all there is of it, or a session of several turns.

    `counter` numbers a device's rows, or those of a trace; with the device it keys what is drawn for the row. Rows are
    listed in the order in which they take prompts from a list: device after device, or as a trace has them.

    With `gap_ns` a device's rows form a chain: each but the first comes that long after the one before has ended, and
    `arrival_ns` is the sum of the first arrival and the gaps.
    """

    place: I64Array  # of the device in its group
    counter: I64Array
    arrival_ns: I64Array
    gap_ns: I64Array | None = None
    prompt_tokens: I64Array | None = None  # where a trace says it, and so the rest
    output_tokens: I64Array | None = None
    history_tokens: I64Array | None = None  # of the prompt
    session: I64Array | None = None  # the row that opened the row's session; -1 for none
    turn: I64Array | None = None  # in that session

    def __len__(self) -> int:
        return len(self.place)


def ragged(counts: I64Array) -> tuple[I64Array, I64Array]:
    """Owner and number of each of `counts[i]` things of every i: ([0, 0, 2], [0, 1, 0]) for counts [2, 0, 1]."""
    owner = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    first = np.cumsum(counts) - counts
    return owner, np.arange(len(owner), dtype=np.int64) - first[owner]


def each_in_turn(members: Members, per_device: int) -> tuple[I64Array, I64Array]:
    """Places and counters where every device has as many rows."""
    return ragged(np.full(members.count, per_device, dtype=np.int64))


def dealt(members: Members, count: int) -> tuple[I64Array, I64Array]:
    """Places and counters of rows that come to the group as a whole: each goes to a device drawn by key."""
    counter = np.arange(count, dtype=np.int64)
    first = np.full(count, members.entities[0])
    return members.stream("arrivals.place").below_each(members.count, first, counter), counter
