"""In turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from testbed.scenarios.cluster import RouterConfig
from testbed.schedulers.routing import Ask, Candidate


class RoundRobin:
    """The next server by id after the one chosen last, and the first one after the last."""

    class Config(RouterConfig):
        kind: Literal["round-robin"] = "round-robin"

    def __init__(self, _config: Config, _seed: int) -> None:
        self._last = -1

    def choose(self, _ask: Ask, candidates: Sequence[Candidate]) -> int:
        servers = [candidate.server for candidate in candidates]
        self._last = next((server for server in servers if server > self._last), servers[0])
        return self._last
