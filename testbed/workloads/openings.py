"""When a group's requests come: what an arrival law gives, before lengths are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from testbed.core.rng import I64Array
from testbed.workloads.members import Members


@dataclass(frozen=True, slots=True, kw_only=True)
class Openings:
    """A row a request that opens something: all there is of it, or a session of several.

    `counter` numbers a device's rows, or those of a trace; with the device it keys what is drawn for the row. Rows are
    listed in the order in which they take prompts from a list: device after device, or as a trace has them.
    """

    place: I64Array  # of the device in its group
    counter: I64Array
    arrival_ns: I64Array
    prompt_tokens: I64Array | None = None  # where a trace says it
    output_tokens: I64Array | None = None

    def __len__(self) -> int:
        return len(self.place)


def each_in_turn(members: Members, per_device: int) -> tuple[I64Array, I64Array]:
    """Places and counters where every device has as many rows."""
    place = np.repeat(np.arange(members.count, dtype=np.int64), per_device)
    return place, np.tile(np.arange(per_device, dtype=np.int64), members.count)


def dealt(members: Members, count: int) -> tuple[I64Array, I64Array]:
    """Places and counters of rows that come to the group as a whole: each goes to a device drawn by key."""
    counter = np.arange(count, dtype=np.int64)
    first = np.full(count, members.entities[0])
    return members.stream("arrivals.place").below_each(members.count, first, counter), counter
