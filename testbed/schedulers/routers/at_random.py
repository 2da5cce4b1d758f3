"""By lot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from testbed.core.rng import Stream
from testbed.scenarios.cluster import RouterConfig
from testbed.schedulers.routing import Ask, Candidate, least_loaded

DRAWS_AN_ATTEMPT = 2


class AtRandom:
    """Any server, each equally likely: number ``below(n)`` of the n candidates, drawn for (request, 2 attempt)."""

    class Config(RouterConfig):
        kind: Literal["random"] = "random"

    def __init__(self, _config: Config, seed: int) -> None:
        self._stream = Stream.named(seed, "router")

    def choose(self, ask: Ask, candidates: Sequence[Candidate]) -> int:
        return candidates[self._stream.below(len(candidates), ask.request, DRAWS_AN_ATTEMPT * ask.attempt)].server


class PowerOfTwo:
    """The less loaded one of two servers drawn at random; the lowest id among equals.

    Of n candidates number i is drawn for (request, 2 attempt) below n, number j for (request, 2 attempt + 1) below
    n - 1, and j + 1 stands for j from i on. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing".
    """

    class Config(RouterConfig):
        kind: Literal["power-of-two"] = "power-of-two"

    def __init__(self, _config: Config, seed: int) -> None:
        self._stream = Stream.named(seed, "router")

    def choose(self, ask: Ask, candidates: Sequence[Candidate]) -> int:
        count, counter = len(candidates), DRAWS_AN_ATTEMPT * ask.attempt
        if count == 1:
            return candidates[0].server
        one = self._stream.below(count, ask.request, counter)
        other = self._stream.below(count - 1, ask.request, counter + 1)
        other += other >= one
        return least_loaded([candidates[one], candidates[other]]).server
