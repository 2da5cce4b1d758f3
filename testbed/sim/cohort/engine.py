"""The cohort engine: a fleet of modelled devices as arrays, moved by compiled code, with SimPy as the clock.

It gives what a process a request gives (testbed.sim.lifecycle), to the nanosecond, wherever `eligible.reasons` names
none against it. SimPy says up to when nothing else happens; a kernel handles all events before that instant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from testbed.core.request_row import REQUEST, WIDTH
from testbed.core.rng import I64Array
from testbed.models.source import ModelSource
from testbed.scenarios.schema import Scenario
from testbed.sim.cohort.build import build_memory
from testbed.sim.cohort.state import (
    AT_ITERATIONS,
    AT_ROWS,
    AT_SLOTS,
    BROKEN,
    FIRST_FREE,
    FULL,
    ITERATION_WIDTH,
    NEVER,
    NEXT,
    NOBODY,
    NOW_NS,
    NUM_ENDED,
    NUM_ITERATIONS,
    NUM_ROWS,
    REACHED,
    SLOT_WIDTH,
    TIGHT,
)
from testbed.sim.cohort.window import advance
from testbed.sim.kernel import Clock, Wait
from testbed.sim.request_table import RequestTable

_EVENTS_A_CALL = 1_000_000  # then Python may report, or be interrupted


class Results(NamedTuple):
    """Where finished rows go: of requests, in the order of their ends, and of servers' iterations."""

    requests: Callable[[I64Array], None]
    iterations: Callable[[I64Array], None]
    progress: Callable[[int, int], None] = lambda _now_ns, _num_ended: None


class CohortError(Exception):
    """Something happened that only the other engine can tell exactly."""


class CohortRun:
    """One run. `memory` holds its state, and at the end every counter."""

    def __init__(self, scenario: Scenario, source: ModelSource, requests: RequestTable, results: Results) -> None:
        self.clock = Clock()
        self.memory = build_memory(scenario, source, requests)
        self._results = results

    @property
    def now_ns(self) -> int:
        return int(self.memory.fixed[NOW_NS])

    def run(self) -> None:
        """Until every request has ended. Whatever ends it early, what had ended before is passed on."""
        self.clock.process(self._drive())
        try:
            self.clock.run()
        finally:
            self._fetch()

    def unfinished(self) -> I64Array:
        """Rows of requests under way: what had been computed of them, which may lie ahead of the clock."""
        live = self.memory.live
        slots = live[live[AT_SLOTS] :].reshape(-1, SLOT_WIDTH)
        free, taken = int(live[FIRST_FREE]), np.ones(len(slots), np.bool_)
        while free != NOBODY:
            taken[(free - live[AT_SLOTS]) // SLOT_WIDTH] = False
            free = int(live[free + NEXT])
        return slots[taken & (slots[:, REQUEST] != NOBODY), :WIDTH].copy()

    def _drive(self) -> Wait[None]:
        while self._advance():
            yield self.clock.timeout(self.now_ns - self.clock.now_ns)
        yield self.clock.timeout(self.now_ns - self.clock.now_ns)

    def _advance(self) -> bool:
        """One window; False when nothing is left to happen."""
        with np.errstate(over="ignore"):  # without numba draws are NumPy's scalars, which warn where they wrap
            why = advance(*self._arrays(), self._limit_ns(), _EVENTS_A_CALL)
        if why == BROKEN:
            raise CohortError("a token sent down was given up")
        if why == TIGHT:
            self.memory.grow()
        if why in {FULL, REACHED}:
            self._fetch()
            self._results.progress(self.now_ns, int(self.memory.fixed[NUM_ENDED]))
        return why in {TIGHT, FULL, REACHED}

    def _limit_ns(self) -> int:
        """Nothing else is on the clock before it."""
        next_ns = self.clock.peek()
        return NEVER if next_ns == float("inf") else int(next_ns)

    def _arrays(self) -> tuple[I64Array, I64Array, I64Array]:
        return self.memory.fixed, self.memory.live, self.memory.agenda

    def _fetch(self) -> None:
        live = self.memory.live
        self._results.requests(_rows(live, AT_ROWS, NUM_ROWS, WIDTH))
        self._results.iterations(_rows(live, AT_ITERATIONS, NUM_ITERATIONS, ITERATION_WIDTH))
        live[NUM_ROWS] = live[NUM_ITERATIONS] = 0


def _rows(live: I64Array, first: int, count: int, width: int) -> I64Array:
    return live[live[first] : live[first] + live[count] * width].reshape(-1, width)
