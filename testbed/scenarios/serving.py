"""How a server forms its iterations: batching, order, priorities and memory (docs/servers.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny

from testbed.core.registry import SCHEDULERS
from testbed.scenarios.base import Block
from testbed.scenarios.pieces import PieceConfig, piece


class SchedulerConfig(PieceConfig):
    """Base of every scheduler's own configuration; `kind` names the registry row."""


Scheduler = Annotated[SerializeAsAny[SchedulerConfig], piece(SCHEDULERS)]


class Serving(Block):
    """The part of a `servers` entry that says how its workers serve."""

    max_batch: int = Field(default=32, ge=1)  # sequences in one iteration
    max_prefill_tokens: int = Field(default=2048, ge=1)  # in one iteration; a longer prompt goes alone, or in chunks
    chunk_tokens: int | None = Field(default=None, ge=1)  # an iteration's tokens; None: prompts run whole
    priority: Literal["arrival", "decode", "prefill"] = "arrival"  # between steps and prefills
    max_resident: int | None = Field(default=None, ge=1)  # sequences that hold KV; None: as many as memory holds
    scheduler: Scheduler = Field(default="fifo", validate_default=True)
