"""By the number of requests under way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from testbed.scenarios.cluster import RouterConfig
from testbed.schedulers.routing import Ask, Candidate, least_loaded


class LeastLoaded:
    """The server with the fewest requests under way; the lowest id among equals."""

    class Config(RouterConfig):
        kind: Literal["least-loaded"] = "least-loaded"

    def __init__(self, _config: Config, _seed: int) -> None:
        pass

    def choose(self, _ask: Ask, candidates: Sequence[Candidate]) -> int:
        return least_loaded(candidates).server
