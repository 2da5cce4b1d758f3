"""Measured times of one model's layer on one device, as a JSON file of our own [our design].

    {"version": 1, "name": "rtx-4090 llama-3.1-8b", "source": "where the times come from",
     "model": {"name": ..., "hidden_size": ..., "intermediate_size": ..., "num_heads": ..., "num_kv_heads": ...,
               "head_dim": ..., "vocab_size": ...},
     "processors": 1, "all_reduce": "apart", "weight_bits": 16, "kv_bits": 16, "overhead_ns": 0,
     "layer": {"tokens": [1, 2, ...], "time_ns": [...]},
     "prefill_attention": {"new_tokens": [...], "past_tokens": [...], "time_ns": [[...], ...]},
     "decode_attention": {"sequences": [...], "context_tokens": [...], "time_ns": [[...], ...]},
     "decode_beside_prefill": {the same, while a prefill runs in the same pass},
     "embedding": {"tokens": [...], "time_ns": [...]}, "head": {"sequences": [...], "time_ns": [...]}}

Times are whole nanoseconds: of one decoder layer without its attention for so many new tokens of a batch; of one
layer's attention for one prefill, and for the decode steps of a batch together; of embedding and of norm and head.
`processors` share every layer (tensor parallelism), `all_reduce` says whether `layer` has their messages in it.
Only `layer` must be there; what a file leaves out is by the profile's roofline, and the summary says so.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.models.shape import ModelShape
from testbed.scenarios.base import Block, as_pydantic
from testbed.scenarios.problems import validate
from testbed.scenarios.profiles import ProcessorProfile

Counts = list[int]
_LAYER_SIZES = ("hidden_size", "intermediate_size", "num_heads", "num_kv_heads", "head_dim")


def _check_axis(name: str, values: Sequence[int]) -> None:
    if not values or values[0] < 0 or any(later <= earlier for earlier, later in itertools.pairwise(values)):
        raise as_pydantic(ScenarioError("whole numbers that rise are expected", path=name))


def _check_times(times: Sequence[int], number: int, path: str = "time_ns") -> None:
    if len(times) != number or min(times, default=0) < 0:
        raise as_pydantic(ScenarioError("one time, not below 0, for each entry of the axis is expected", path=path))


class TokenLine(Block):
    """Times by the number of new tokens."""

    tokens: Counts
    time_ns: Counts

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_axis("tokens", self.tokens)
        _check_times(self.time_ns, len(self.tokens))
        return self


class SequenceLine(Block):
    """Times by the number of sequences."""

    sequences: Counts
    time_ns: Counts

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_axis("sequences", self.sequences)
        _check_times(self.time_ns, len(self.sequences))
        return self


class PrefillGrid(Block):
    """Times of one sequence: a row for each number of new tokens, in it one for each number of tokens before them."""

    new_tokens: Counts
    past_tokens: Counts
    time_ns: list[Counts]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_grid(("new_tokens", self.new_tokens), ("past_tokens", self.past_tokens), self.time_ns)
        return self


class DecodeGrid(Block):
    """Times of a batch of equal sequences: a row for each number of them, in it one for each context."""

    sequences: Counts
    context_tokens: Counts
    time_ns: list[Counts]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_grid(("sequences", self.sequences), ("context_tokens", self.context_tokens), self.time_ns)
        return self


def _check_grid(rows: tuple[str, Counts], columns: tuple[str, Counts], times: Sequence[Counts]) -> None:
    for name, values in (rows, columns):
        _check_axis(name, values)
    if len(times) != len(rows[1]):
        raise as_pydantic(ScenarioError(f"one row for each of {rows[0]} is expected", path="time_ns"))
    for index, row in enumerate(times):
        _check_times(row, len(columns[1]), f"time_ns[{index}]")


class MeasuredModel(Block):
    """The sizes that decide a layer's times."""

    name: str
    hidden_size: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    num_kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    vocab_size: int = Field(ge=1)


class ProfileTable(Block):
    """Everything that a file holds."""

    version: Literal[1] = 1
    name: str
    source: str = Field(min_length=1)
    model: MeasuredModel
    processors: int = Field(default=1, ge=1)
    all_reduce: Literal["apart", "included"] = "apart"
    weight_bits: float = Field(gt=0)
    kv_bits: float = Field(gt=0)
    overhead_ns: int = Field(default=0, ge=0)  # of a pass
    layer: TokenLine
    prefill_attention: PrefillGrid | None = None
    decode_attention: DecodeGrid | None = None
    decode_beside_prefill: DecodeGrid | None = None
    embedding: TokenLine | None = None
    head: SequenceLine | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.decode_beside_prefill is not None and self.decode_attention is None:
            problem = "steps beside a prefill need those without one, too"
            raise as_pydantic(ScenarioError(problem, path="decode_attention", allowed="a grid"))
        return self

    @property
    def by_roofline(self) -> list[str]:
        """What is not in the file."""
        parts = ("prefill_attention", "decode_attention", "embedding", "head")
        return [part for part in parts if getattr(self, part) is None]


def read_profile_table(file: str | Path) -> ProfileTable:
    """A table from its file. Raises ScenarioError, located in the file, for one that is none."""
    try:
        data = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"can't be read: {error.strerror}", file=file) from None
    except ValueError as error:
        raise ScenarioError(f"not JSON: {error}", file=file) from None
    try:
        return validate(ProfileTable, data)
    except ScenarioError as error:
        raise error.located(file=file) from None


def check_table(
    table: ProfileTable, profile: ProcessorProfile, shape: ModelShape, weight_bits: float | None, kv_bits: float | None
) -> None:
    """Raise ScenarioError where the table was measured on something else than what is to run.

    Bits are plain ones; None of a packed format, which no table is measured with.
    """
    _check_model(table, shape)
    for what, measured, bits in (("weights", table.weight_bits, weight_bits), ("KV caches", table.kv_bits, kv_bits)):
        if bits != measured:
            problem = f"{table.name} was measured with {what} of {measured:g} bits"
            used = "a packed format" if bits is None else f"{bits:g} bits"
            raise ScenarioError(problem, value=used, allowed=f"{measured:g} bits, or a table measured like this")
    if profile.num_processors != table.processors:
        raise ScenarioError(
            f"{table.name} was measured on {table.processors} processors that share every layer",
            value=profile.num_processors, allowed=f"tensor_parallel: {table.processors}",
        )  # fmt: skip


def _check_model(table: ProfileTable, shape: ModelShape) -> None:
    keys = [*_LAYER_SIZES, *(["vocab_size"] if table.head is not None else [])]
    differing = [key for key in keys if getattr(table.model, key) != getattr(shape, key)]
    if differing:
        raise ScenarioError(
            f"{table.name} was measured with {table.model.name}, and layers of {shape.name} differ",
            value=", ".join(f"{key} {getattr(shape, key)}" for key in differing),
            allowed=", ".join(f"{key} {getattr(table.model, key)}" for key in differing),
        )
