"""The clock: SimPy with whole nanoseconds and a written order for what happens at one instant.

At one instant everything of SimPy's own priorities comes first (arrivals, deliveries, stages that end), then the ends
of server iterations, then the forming of new batches: a batch holds all that is ready by its instant, whatever the
order in which it became so. Queues are ordered by (ready time, request), never by arrival in a list.
"""

from __future__ import annotations

from collections.abc import Generator
from enum import IntEnum
from typing import Any, TypeVar

import simpy

from testbed.core.work import Ticket

T = TypeVar("T")
Wait = Generator[simpy.Event, Any, T]


class Rank(IntEnum):
    """Order within an instant; SimPy's own URGENT is 0 and NORMAL is 1."""

    ITERATION_END = 2
    BATCH_FORMATION = 3


class Clock(simpy.Environment):
    """Virtual time, an int in nanoseconds since the start of the run."""

    @property
    def now_ns(self) -> int:
        return int(self._now)

    def at(self, delay_ns: int, rank: Rank) -> simpy.Event:
        """An event `delay_ns` from now that comes after everything of a lower rank at its instant."""
        event = simpy.Event(self)
        event._ok = True
        event._value = None
        self.schedule(event, rank, delay_ns)  # type: ignore[arg-type]  # SimPy orders by any int
        return event

    def completion(self, ticket: Ticket[T]) -> Wait[T]:
        """Wait for a stage's end in virtual time, then ask for its result."""
        yield self.timeout(ticket.duration_ns)
        return ticket.value()
