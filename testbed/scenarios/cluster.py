"""Servers as a cluster: who sends requests where, how many servers there are, and how they fail (docs/cluster.md)."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator
from pydantic_core import PydanticCustomError

from testbed.core.errors import ScenarioError
from testbed.core.registry import ROUTERS
from testbed.core.units import format_seconds, ns_to_seconds
from testbed.scenarios.base import Block, PositiveTimeNs, TimeNs, as_pydantic
from testbed.scenarios.pieces import PieceConfig, piece
from testbed.scenarios.topology import Failures

Region = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


def _at(path: str, problem: str, **told: Any) -> PydanticCustomError:
    return as_pydantic(ScenarioError(problem, path=path, **told))


class RouterConfig(PieceConfig):
    """Base of every router's own configuration; `kind` names the registry row."""

    health_delay: TimeNs = 0  # until it learns that a server failed or came back, unless a request finds out first


Router = Annotated[SerializeAsAny[RouterConfig], piece(ROUTERS)]


class RegionPair(Block):
    """How far two regions are from each other, either way."""

    between: Annotated[list[Region], Field(min_length=2, max_length=2)]
    delay: TimeNs


class RegionalConfig(RouterConfig):
    """Of a router that goes by distance: a table of delays between regions; none: the topology's, or home and away."""

    distances: list[RegionPair] = Field(default_factory=list)

    @model_validator(mode="after")
    def _pairs_differ(self) -> Self:
        seen = set()
        for index, pair in enumerate(self.distances):
            one, other = sorted(pair.between)
            path = f"distances[{index}].between"
            if one == other:
                raise _at(path, "a region is at no distance from itself", value=one, allowed="two different regions")
            if (one, other) in seen:
                raise _at(path, "an earlier entry is about these regions", value=f"{one}, {other}")
            seen.add((one, other))
        return self


class Autoscale(Block):
    """When servers of a group are started and taken away (testbed/schedulers/autoscaling.py has the law)."""

    signal: Literal["queue", "utilisation", "slo"]
    target: float | None = Field(default=None, ge=1e-6, le=1e6)  # requests a server, or its share of busy time
    up: float | None = Field(default=None, ge=0, le=1e6)  # more servers above this level; None: the target
    down: float | None = Field(default=None, ge=0, le=1e6)  # fewer below this; None: the target
    interval: PositiveTimeNs
    cold_start: TimeNs  # from its start, when it begins to cost, until a server takes requests
    min: int = Field(default=1, ge=0)
    max: int = Field(ge=1, le=100_000)
    cooldown: TimeNs = 0  # after any change, before servers are taken away

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min > self.max:
            raise _at("min", "more than max", value=self.min, allowed=f"at most {self.max}")
        if self.min == 0 and self.signal != "queue":
            problem = f"no server, no {self.signal} to measure: nothing would ever start one"
            raise _at("min", problem, value=0, allowed="at least 1, or signal: queue")
        self._check_levels()
        return self

    def _check_levels(self) -> None:
        keys = ("up", "down") if self.signal == "slo" else ("target",)
        for key in keys:
            if getattr(self, key) is None:
                raise _at(key, "required key is missing", allowed=f"a level of {_MEASURES[self.signal]}")
        if self.signal == "slo" and self.target is not None:
            problem = "the share of missed requests says which way, not how many servers it takes"
            raise _at("target", problem, value=self.target, allowed="up and down alone")
        named = [("down", self.down), ("target", self.target), ("up", self.up)]
        given = [(name, level) for name, level in named if level is not None]
        for (low, low_level), (high, high_level) in pairwise(given):
            if low_level > high_level:
                allowed = f"at most {high_level:g}, which {high} is"
                raise _at(low, "thresholds contradict each other", value=low_level, allowed=allowed)
        for name, level in given:
            if self.signal != "queue" and level > 1:
                raise _at(name, f"more than all: this is {_MEASURES[self.signal]}", value=level, allowed="0 to 1")


_MEASURES = {
    "queue": "outstanding requests a server",
    "utilisation": "the share of time that servers compute",
    "slo": "the share of requests that miss the slo",
}


class ServerDown(Block):
    """A time during which one server of the group is down; without `until` it stays down."""

    server: int = Field(default=0, ge=0)  # its place in the group
    at: TimeNs
    until: TimeNs | None = Field(default=None, validate_default=False)

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.until is not None and self.until <= self.at:
            at, until = (format_seconds(ns_to_seconds(time)) for time in (self.at, self.until))
            raise _at("until", "a repair comes after its failure", value=until, allowed=f"more than `at`, {at}")
        return self


class Operation(Block):
    """The part of a `servers` entry that says where its workers are, how many run, and when they fail."""

    region: Region | None = None
    autoscale: Autoscale | None = None  # None: `count` workers run all the time
    failures: Failures | None = None  # at random, each worker by itself
    down: list[ServerDown] = Field(default_factory=list)
    on_failure: Literal["fail", "requeue"] = "fail"  # what becomes of a failed worker's requests
    max_requeues: int = Field(default=10, ge=1)  # of one request; then it ends

    @property
    def can_fail(self) -> bool:
        return self.failures is not None or bool(self.down)


def check_operation(path: str, count: int, operation: Operation) -> None:
    """Raise for no worker, a count beyond the autoscaler's bounds, and a worker that is not there."""
    scale = operation.autoscale
    if scale is None and count == 0:
        raise _at(f"{path}.count", "nobody would ever serve", value=count, allowed="at least 1, or autoscale")
    if scale is not None and not scale.min <= count <= scale.max:
        problem = "as many run at the start, and the autoscaler would not let them"
        raise _at(f"{path}.count", problem, value=count, allowed=f"{scale.min} to {scale.max}")
    most = count if scale is None else scale.max
    for index, down in enumerate(operation.down):
        if down.server >= most:
            where = f"{path}.down[{index}].server"
            raise _at(where, "no such worker in the group", value=down.server, allowed=f"0 to {most - 1}")
