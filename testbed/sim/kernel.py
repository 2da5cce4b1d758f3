"""The clock: SimPy with whole nanoseconds and a written order for what happens at one instant.

At one instant servers fail, are repaired and come up first, then devices go off, each in the order of their numbers,
then comes everything of SimPy's own priorities (deliveries, stages and requests that end), then requests that arrive,
then the admission of requests whose turn on their device has come, both in the order of the requests' numbers, then the
ends of server iterations, then the forming of new batches, both in the order of the servers' numbers, and at last
autoscalers look. So a router knows of every request that has ended by its instant, and a batch holds all that is ready
by its instant, whatever the order in which it became so. Queues are ordered by (ready time, request), never by arrival
in a list.
"""

from __future__ import annotations

from collections.abc import Generator
from enum import IntEnum
from operator import itemgetter
from typing import Any, TypeVar

import simpy

T = TypeVar("T")
Wait = Generator[simpy.Event, Any, T]


class Rank(IntEnum):
    """Order within an instant; SimPy's own URGENT is 0 and NORMAL is 1."""

    SERVER_STATE = -2
    DEVICE_STATE = -1
    ARRIVAL = 2
    ADMISSION = 3
    ITERATION_END = 4
    BATCH_FORMATION = 5
    SCALING = 6


_PLACES = 1 << 32  # of events of one rank at one instant


class Clock(simpy.Environment):
    """Virtual time, an int in nanoseconds since the start of the run."""

    @property
    def now_ns(self) -> int:
        return self._now  # type: ignore[return-value]  # only ints are ever scheduled

    def at(self, delay_ns: int, rank: Rank, place: int = 0) -> simpy.Event:
        """An event `delay_ns` from now, after everything of a lower rank, or of a lower place, at its instant."""
        event = simpy.Event(self)
        event._ok = True
        event._value = None
        self.schedule(event, rank * _PLACES + place, delay_ns)  # type: ignore[arg-type]  # SimPy orders by any int
        return event


class Gate:
    """Lets those who ask at one instant pass in the order of their numbers, at a rank of its own.

    Who asks because another has passed at this instant comes after all who had asked before.
    """

    def __init__(self, clock: Clock, rank: Rank) -> None:
        self._clock = clock
        self._rank = rank
        self._asking: list[tuple[int, simpy.Event]] = []

    def passage(self, number: int) -> simpy.Event:
        """An event of this instant; numbers are unique."""
        if not self._asking:
            self._clock.at(0, self._rank).callbacks.append(self._open)
        passed = self._clock.event()
        self._asking.append((number, passed))
        return passed

    def _open(self, _: simpy.Event) -> None:
        asking, self._asking = self._asking, []
        for _number, passed in sorted(asking, key=itemgetter(0)):
            passed.succeed()


class BusyTime:
    """What a processor has spent computing, one stage at a time."""

    __slots__ = ("_total_ns", "_until_ns")

    def __init__(self) -> None:
        self._total_ns = 0
        self._until_ns = 0

    def start(self, now_ns: int, duration_ns: int) -> None:
        """A stage begins; the one before has ended."""
        self._total_ns += duration_ns
        self._until_ns = now_ns + duration_ns

    def stop(self, now_ns: int) -> None:
        """The stage under way, if any, is given up."""
        self._total_ns = self.until(now_ns)
        self._until_ns = min(self._until_ns, now_ns)

    def until(self, now_ns: int) -> int:
        """Nanoseconds until now; a stage under way counts as far as it has come."""
        return self._total_ns - max(0, self._until_ns - now_ns)
