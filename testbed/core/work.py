"""What a processor is asked to do, and the promise it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One sequence's share of a forward pass through layers [start, stop).

    A prefill has `new_tokens` > 1, a decode step has 1. `past_tokens` are already in the KV cache.
    """

    start: int
    stop: int
    new_tokens: int
    past_tokens: int
    has_head: bool = True  # after the last layer its last row goes through the head: not so an early chunk's


@dataclass(frozen=True, slots=True, kw_only=True)
class KvDemand:
    """What one sequence may come to hold in a server's KV cache."""

    max_tokens: int  # prompt and most output
    num_layers: int  # behind its cut
    full_bytes: int  # at `max_tokens`


@dataclass(frozen=True, slots=True)
class Ticket(Generic[T]):
    """A stage under way: it ends `duration_ns` of virtual time after it began, and `value` is asked for only then.

    Real tensors therefore compute while virtual time goes on elsewhere.
    """

    duration_ns: int
    value: Callable[[], T]
