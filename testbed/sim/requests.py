"""The requests of a run: a pure function of the scenario, the seed and the files it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from testbed.core.errors import ScenarioError
from testbed.scenarios.prompts import RandomPrompts
from testbed.scenarios.schema import Group, Scenario
from testbed.scenarios.workload import RequestKind
from testbed.sim.prompts import Encoder, Ids, PromptReader
from testbed.sim.request_table import GroupPart, GroupPrompts, Request, RequestTable, table_of
from testbed.workloads.lengths import length_law
from testbed.workloads.members import Members
from testbed.workloads.rows import openings_of, rows_of

__all__ = ["Request", "RequestTable", "Workloads"]


class Workloads:
    """Draws every group's requests. `tokenizer` is asked for only where prompts are text.

    A device's requests depend on its own group alone: its draws are keyed by the group's name and its place in the
    group, and of the group's prompts, taken in turn, the first device takes the first ones.
    """

    def __init__(self, scenario: Scenario, *, vocab_size: int, tokenizer: Callable[[], Encoder]) -> None:
        self._scenario = scenario
        self._reader = PromptReader(seed=scenario.seed, vocab_size=vocab_size, tokenizer=tokenizer)

    def requests(self) -> RequestTable:
        """All requests, numbered in the order of (nominal arrival, device, the device's count)."""
        parts = [self._group(index, group) for index, group in enumerate(self._scenario.fleet)]
        return table_of(self._scenario, self._reader.vocab_size, parts)

    def _group(self, index: int, group: Group) -> GroupPart:
        workload = self._scenario.workload_of(group)
        members = Members.of(group.name, group.count, self._scenario.seed)
        with self._located(index, "arrivals"):
            openings = openings_of(workload, members)
            if group.compute == "real" and openings.session is not None:
                raise ScenarioError("sessions of a trace are for modelled groups", value=workload.arrivals.kind)
        listed = [self._listed(index, number, kind) for number, kind in enumerate(workload.request_kinds)]
        lengths = [[len(prompt) for prompt in prompts] for prompts in listed]
        prompts = GroupPrompts(
            kinds=[kind.name for kind in workload.request_kinds],
            listed=listed,
            is_real=group.compute == "real",
            ignore_eos=workload.ignore_eos,
        )
        return GroupPart(members=members, rows=rows_of(workload, members, openings, lengths), prompts=prompts)

    def _listed(self, index: int, number: int, kind: RequestKind) -> Sequence[Ids]:
        """The kind's prompts; whatever its laws read from files is read here, too, where it can be located."""
        assert kind.prompts is not None, "checked when the workload was read"
        assert kind.output_tokens is not None, "checked as well"
        with self._located(index, self._key(index, number, "output_tokens")):
            length_law(kind.output_tokens)
        with self._located(index, self._key(index, number, "prompts")):
            if isinstance(kind.prompts, RandomPrompts):
                length_law(kind.prompts.length)
            return self._reader.listed(kind.prompts)

    def _key(self, index: int, number: int, key: str) -> str:
        """Where a kind's key stands: with the kind, or else with the workload."""
        kinds = self._scenario.workload_of(self._scenario.fleet[index]).kinds
        return f"kinds[{number}].{key}" if kinds is not None and getattr(kinds[number], key) is not None else key

    @contextmanager
    def _located(self, group: int, key: str) -> Iterator[None]:
        """Say of what is wrong with a file, a prompt or a tokenizer which part of the scenario asked for it."""
        try:
            yield
        except ScenarioError as error:
            raise error.located(path=f"{self._scenario.workload_path(group)}.{key}") from None
