"""All requests of one group as columns: when each comes, what it waits for, how long it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from testbed.core.registry import ARRIVALS
from testbed.core.rng import I64Array
from testbed.scenarios.workload import RandomPrompts, Workload
from testbed.workloads.lengths import length_law
from testbed.workloads.members import Members
from testbed.workloads.openings import Openings


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRows:
    """A row a request, in the order in which they take prompts from a list."""

    place: I64Array  # of the device in its group
    counter: I64Array
    arrival_ns: I64Array
    prompt_tokens: I64Array
    output_tokens: I64Array
    listed: I64Array  # number of the prompt in the list that it takes; -1 for random ids


def openings_of(workload: Workload, members: Members) -> Openings:
    """The arrival law's rows. Raises ScenarioError for a trace that can't be read."""
    arrivals = workload.arrivals
    found: Openings = ARRIVALS.load(arrivals.kind)(arrivals).openings(members)
    return found


def rows_of(workload: Workload, members: Members, openings: Openings, listed_lengths: Sequence[int]) -> GroupRows:
    """A group's requests; `listed_lengths` of the prompts that they take in turn, empty where ids are random."""
    count = len(openings)
    entities, counter = members.entities[openings.place], openings.counter
    prompt_tokens, listed = openings.prompt_tokens, np.full(count, -1, dtype=np.int64)
    if prompt_tokens is None and listed_lengths:
        listed = np.arange(count, dtype=np.int64) % len(listed_lengths)
        prompt_tokens = np.array(listed_lengths, dtype=np.int64)[listed]
    elif prompt_tokens is None:
        assert isinstance(workload.prompts, RandomPrompts), "all other kinds have prompts"
        u = members.stream("lengths.prompt").uniform_each(entities, counter)
        prompt_tokens = length_law(workload.prompts.length).at(u)
    output_tokens = openings.output_tokens
    if output_tokens is None:
        u = members.stream("lengths.output").uniform_each(entities, counter)
        output_tokens = length_law(workload.output_tokens).at(u)
    return GroupRows(
        place=openings.place,
        counter=counter,
        arrival_ns=openings.arrival_ns,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        listed=listed,
    )
