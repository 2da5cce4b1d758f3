"""Which server a new request goes to; it stays there, where its KV is, until it ends or the server fails.

A router is asked when a device admits a request, in the order of the requests' numbers within an instant, and again
after a server failure. It sees what a router knows: of each server that could take the request its number of
outstanding requests, all that were sent there and have not ended, and its distance. Servers that are off, starting or
draining, that it believes down, that could never hold the request or have no way to its device are not among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

NO_SESSION = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request that needs a server."""

    request: int
    attempt: int = 0  # how often it was sent somewhere before
    session: int = NO_SESSION  # the request that opened its session


@dataclass(frozen=True, slots=True)
class Candidate:
    """A server that could take it."""

    server: int
    num_outstanding: int
    distance_ns: int = 0  # from the request's device


class Router(Protocol):
    """Built as ``Router(config, seed)``. Deterministic; draws are keyed by the seed, the request and its attempt."""

    def choose(self, ask: Ask, candidates: Sequence[Candidate]) -> int:
        """The server of one of the candidates, which come by server number; there is at least one."""
        ...


def least_loaded(candidates: Sequence[Candidate]) -> Candidate:
    """The one with the fewest outstanding requests; the lowest number among equals."""
    return min(candidates, key=lambda candidate: (candidate.num_outstanding, candidate.server))
