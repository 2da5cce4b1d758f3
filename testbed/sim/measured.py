"""Cost models with the measured tables that profiles name: read once, held against the scenario before it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from testbed.actors.costs import CostModel
from testbed.actors.kv import KVLaw, kv_laws
from testbed.actors.profile_table import ProfileTable, read_profile_table
from testbed.actors.weight_plan import weight_laws
from testbed.actors.weights import WeightLaw
from testbed.core.cast import TableUse
from testbed.core.errors import ScenarioError
from testbed.core.work import Work
from testbed.models.shape import ModelShape
from testbed.scenarios.profiles import ProcessorProfile
from testbed.scenarios.schema import Scenario
from testbed.sim.choosing import build_policies
from testbed.sim.request_table import RequestTable

BITS = {"float32": 32, "bfloat16": 16, "float16": 16}


class Measured:
    """Makes cost models, and knows those that took a table."""

    def __init__(self, shape: ModelShape) -> None:
        self._shape = shape
        self._tables: dict[str, ProfileTable] = {}
        self._users: dict[tuple[str, str], list[CostModel]] = {}  # by profile and file

    def costs(self, profile: ProcessorProfile, weights: WeightLaw | float, kv: KVLaw) -> CostModel:
        """Raises ScenarioError, located below the profile, for a table that doesn't fit."""
        asked = profile.profile_table
        if asked is None:
            return CostModel(profile=profile, shape=self._shape, weight_bits=weights, kv_bits=kv)
        if asked.file not in self._tables:
            self._tables[asked.file] = read_profile_table(asked.file)
        table = self._tables[asked.file]
        with _below("profile_table"):
            model = CostModel(profile=profile, shape=self._shape, weight_bits=weights, kv_bits=kv, table=table)
        self._users.setdefault((profile.name, asked.file), []).append(model)
        return model

    def uses(self) -> list[TableUse]:
        """What each profile took from its table, and how far beyond it a run went."""
        return [
            TableUse(
                profile=profile,
                table=self._tables[file].name,
                source=self._tables[file].source,
                by_roofline=self._tables[file].by_roofline,
                extrapolated=_furthest(models),
            )
            for (profile, file), models in sorted(self._users.items())
        ]


def _furthest(models: Sequence[CostModel]) -> dict[str, int]:
    reached: dict[str, int] = {}
    for model in models:
        for axis, place in model.reached.items():
            reached[axis] = max(place, reached.get(axis, 0))
    return dict(sorted(reached.items()))


def check_tables(scenario: Scenario, shape: ModelShape) -> None:
    """Raise ScenarioError, located, for a table that can't be read or was measured on something else."""
    for user in _users(scenario, shape):
        with _below(user.path):
            user.costs(shape)


def check_reach(scenario: Scenario, shape: ModelShape, requests: RequestTable) -> None:
    """Raise ScenarioError where the largest passes that may come lie beyond what a table was measured at.

    These are as many sequences as a batch may hold, with the longest contexts, and as many of the longest prompts as
    one pass takes.
    """
    if not len(requests):
        return
    prompt = int(requests.prompt_tokens.max())
    total = int((requests.prompt_tokens + requests.max_output_tokens).max())
    for user in _users(scenario, shape):
        if not user.extrapolates:
            batch = min(user.most_sequences, len(requests))
            step = Work(start=user.start, stop=user.stop, new_tokens=1, past_tokens=total - 1)
            piece = prompt if user.chunk_tokens is None else min(prompt, user.chunk_tokens)
            prefill = Work(start=user.start, stop=user.stop, new_tokens=piece, past_tokens=prompt - piece)
            num_prefills = max(1, min(batch, (user.chunk_tokens or user.most_prefill_tokens) // piece))
            with _below(user.path):
                model = user.costs(shape)
                with _below("profile_table"):
                    model.forward_ns([step] * batch)
                    model.forward_ns([prefill] * num_prefills + [step] * (batch - num_prefills))


@dataclass(frozen=True, slots=True, kw_only=True)
class _User:
    """An entry of the scenario that names a table, and the largest passes it may run."""

    path: str
    profile: ProcessorProfile
    weights: WeightLaw
    kv: KVLaw
    start: int
    stop: int
    most_sequences: int = 1
    most_prefill_tokens: int = 0
    chunk_tokens: int | None = None

    @property
    def extrapolates(self) -> bool:
        return self.profile.profile_table is not None and self.profile.profile_table.extrapolate

    def costs(self, shape: ModelShape) -> CostModel:
        return Measured(shape).costs(self.profile, self.weights, self.kv)


def _users(scenario: Scenario, shape: ModelShape) -> Iterator[_User]:
    bits = BITS[scenario.dtype]
    (front, back), (front_kv, back_kv) = weight_laws(scenario.weights, bits), kv_laws(scenario.kv, bits)
    splits = {split for policy in build_policies(scenario) for split in policy.splits(shape.num_layers)}
    for index, group in enumerate(scenario.fleet):
        if group.device.profile_table is not None:
            path = f"fleet[{index}].device"
            yield _User(path=path, profile=group.device, weights=front, kv=front_kv, start=0, stop=max(splits))
    for index, servers in enumerate(scenario.servers):
        if servers.server.profile_table is not None:
            yield _User(
                path=f"servers[{index}].server",
                profile=servers.server,
                weights=back,
                kv=back_kv,
                start=min(splits),
                stop=shape.num_layers,
                most_sequences=servers.max_batch,
                most_prefill_tokens=servers.max_prefill_tokens,
                chunk_tokens=servers.chunk_tokens,
            )


@contextmanager
def _below(path: str) -> Iterator[None]:
    """What is wrong inside a table's own file has no place in the scenario."""
    try:
        yield
    except ScenarioError as error:
        raise (error if error.file is not None else error.below(path)) from None
