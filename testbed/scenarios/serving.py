"""How a server forms its iterations: batching, order, priorities and memory (docs/servers.md)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.registry import SCHEDULERS
from testbed.scenarios.base import Bandwidth, Block, PositiveTimeNs, as_pydantic
from testbed.scenarios.pieces import PieceConfig, piece


class SchedulerConfig(PieceConfig):
    """Base of every scheduler's own configuration; `kind` names the registry row."""


Scheduler = Annotated[SerializeAsAny[SchedulerConfig], piece(SCHEDULERS)]


class KvCache(Block):
    """How a server's memory for keys and values is given out.

    `full`: each sequence's full length with its prefill. `blocks`: blocks of so many positions as it grows; where none
    is free the sequence admitted last gives its own up, and runs its positions again, or has them swapped to host
    memory and back.
    """

    reserve: Literal["full", "blocks"] = "full"
    block_tokens: int = Field(default=16, ge=1)
    preemption: Literal["recompute", "swap"] = "recompute"
    swap_bandwidth: Bandwidth | None = None  # between the server and its host memory, both ways together
    prefix: Literal["none", "session"] = "none"  # what a session's turn held stays in free blocks for its next turn

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.reserve == "full":
            fields = type(self).model_fields
            given = [key for key in self.model_fields_set if getattr(self, key) != fields[key].default]
            if given:  # a default may be written out, as in a saved scenario
                key = min(given)
                problem = "a server that reserves full lengths has no blocks and preempts nobody"
                allowed = "reserve: blocks beside it"
                value = str(getattr(self, key))
                raise as_pydantic(ScenarioError(problem, path=key, value=value, allowed=allowed))
        if (self.preemption == "swap") != (self.swap_bandwidth is not None):
            problem = "swapping needs a bandwidth, and nothing else does"
            rate = "" if self.swap_bandwidth is None else f"{self.swap_bandwidth:g} B/s"
            allowed = "preemption: swap with a swap_bandwidth such as 25 GB/s, or neither"
            raise as_pydantic(ScenarioError(problem, path="swap_bandwidth", value=rate, allowed=allowed))
        return self


class Admission(Block):
    """Who is turned away at the server's door: a request that would wait behind too many, or for too long."""

    max_inside: int | None = Field(default=None, ge=0)  # requests routed here that have not ended
    max_waiting: int | None = Field(default=None, ge=0)  # requests routed here that have not been begun
    max_wait: PositiveTimeNs | None = Field(default=None, validate_default=False)  # as predicted

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.max_inside is None and self.max_waiting is None and self.max_wait is None:
            raise as_pydantic(ScenarioError("no limit is set", allowed="max_inside, max_waiting, max_wait"))
        return self


class Serving(Block):
    """The part of a `servers` entry that says how its workers serve."""

    max_batch: int = Field(default=32, ge=1)  # sequences in one iteration
    max_prefill_tokens: int = Field(default=2048, ge=1)  # in one iteration; a longer prompt goes alone, or in chunks
    chunk_tokens: int | None = Field(default=None, ge=1)  # an iteration's tokens; None: prompts run whole
    priority: Literal["arrival", "decode", "prefill"] = "arrival"  # between steps and prefills
    max_resident: int | None = Field(default=None, ge=1)  # sequences that hold KV; None: as many as memory holds
    kv_cache: KvCache = KvCache()
    admission: Admission | None = None  # None: everybody is let in
    scheduler: Scheduler = Field(default="fifo", validate_default=True)
