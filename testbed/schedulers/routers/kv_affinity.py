"""By where a session's keys and values are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.registry import ROUTERS
from testbed.core.units import format_seconds, ns_to_seconds
from testbed.scenarios.base import as_pydantic
from testbed.scenarios.cluster import Router, RouterConfig
from testbed.schedulers.routing import NO_SESSION, Ask, Candidate, least_loaded
from testbed.schedulers.routing import Router as AnyRouter


class KvAffinity:
    """The server that had the session's last turn, unless it is much busier than the rest: then as `otherwise` says.

    Much busier: more than `spill` outstanding requests above the least loaded candidate. First turns, requests that are
    part of no session, and turns whose server is not among the candidates go as `otherwise` says too. Where a turn goes
    the next one follows.
    """

    class Config(RouterConfig):
        kind: Literal["kv-affinity"] = "kv-affinity"
        spill: int = Field(default=8, ge=0)
        otherwise: Router = Field(default="least-loaded", validate_default=True)

        @model_validator(mode="after")
        def _goes_elsewhere(self) -> Self:
            if self.otherwise.kind == self.kind:
                raise as_pydantic(
                    ScenarioError("what to do without affinity is not affinity", path="otherwise", value=self.kind)
                )
            if self.otherwise.health_delay:
                delay = format_seconds(ns_to_seconds(self.otherwise.health_delay))
                raise as_pydantic(
                    ScenarioError("servers' health is watched by the outer router", path="otherwise.health_delay",
                                  value=delay, allowed="health_delay beside otherwise")
                )  # fmt: skip
            return self

    def __init__(self, config: Config, seed: int) -> None:
        self._spill = config.spill
        self._otherwise: AnyRouter = ROUTERS.load(config.otherwise.kind)(config.otherwise, seed)
        self._last: dict[int, int] = {}  # session -> server of its last turn

    def choose(self, ask: Ask, candidates: Sequence[Candidate]) -> int:
        server = self._home(ask, candidates)
        if server is None:
            server = self._otherwise.choose(ask, candidates)
        if ask.session != NO_SESSION:
            self._last[ask.session] = server
        return server

    def _home(self, ask: Ask, candidates: Sequence[Candidate]) -> int | None:
        last = self._last.get(ask.session)
        home = next((candidate for candidate in candidates if candidate.server == last), None)
        if home is None or home.num_outstanding > least_loaded(candidates).num_outstanding + self._spill:
            return None
        return home.server
