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


@dataclass(frozen=True, slots=True)
class Ticket(Generic[T]):
    """A stage under way: it ends `duration_ns` of virtual time after it began, and its result is asked for only then.

    `duration_ns` None means that the stage takes as long as it really takes (``costs: measured``): `value` is asked for
    at once and its wall time becomes the virtual duration.
    """

    duration_ns: int | None
    value: Callable[[], T]
