"""Run a world: requests enter at their arrival, the clock goes on until nothing is left to happen."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np
import simpy

from testbed.core.collector import rare_collections
from testbed.sim.kernel import Rank
from testbed.sim.lifecycle import live
from testbed.sim.request_table import NONE, I32Array, RequestTable
from testbed.sim.world import World


def simulate(world: World, requests: RequestTable, *, stop_at_ns: int | None = None) -> None:
    """Advance virtual time until every request has ended; with `stop_at_ns`, to that instant whatever happens.

    What would happen at `stop_at_ns` itself does not happen any more. Where devices or servers change by themselves
    the clock stands still once the last request has ended, else when nothing is left to happen.
    """
    arrivals = Arrivals(world, requests)
    end = arrivals.over if stop_at_ns is None and world.is_watched else stop_at_ns
    with rare_collections():
        world.clock.run(until=end)
    world.check()
    if stop_at_ns is None:
        assert arrivals.is_over, "every request has entered"


class Arrivals:
    """Lets requests enter: rows that wait for none at their arrival, a row that waits for another `gap_ns` after its
    end, whatever became of it.

    The requests of one instant enter in the order of their numbers, after all that ends at it (Rank.ARRIVAL). Only
    where a request ends at the instant at which it entered, a row that follows it without a gap enters later in it.
    """

    def __init__(self, world: World, requests: RequestTable) -> None:
        self._world = world
        self._requests = requests
        self._roots = iter(np.flatnonzero(requests.after < 0).tolist())
        self._follower = _followers(requests)
        self._due: list[tuple[int, int]] = []  # (instant, row): the next root, and rows whose predecessor has ended
        self._timers: set[int] = set()  # the instants at which one rings
        self._num_left = len(requests)
        self.over = world.clock.event()  # the last request has ended
        if not self._num_left:
            self.over.succeed()
        self._next_root()
        self._set_timer()

    @property
    def is_over(self) -> bool:
        """Whether nobody is expected any more."""
        return not self._due

    def _next_root(self) -> None:
        row = next(self._roots, None)
        if row is not None:
            heappush(self._due, (int(self._requests.arrival_ns[row]), row))

    def _set_timer(self) -> None:
        """For the earliest row, unless there is one."""
        if self._due and self._due[0][0] not in self._timers:
            due_ns, clock = self._due[0][0], self._world.clock
            self._timers.add(due_ns)
            clock.at(due_ns - clock.now_ns, Rank.ARRIVAL).callbacks.append(self._enter_due)

    def _enter_due(self, _: simpy.Event) -> None:
        now_ns = self._world.clock.now_ns
        self._timers.remove(now_ns)
        while self._due and self._due[0][0] <= now_ns:
            row = heappop(self._due)[1]
            if self._requests.after[row] < 0:
                self._next_root()
            self._enter(row, now_ns)
        self._set_timer()

    def _enter(self, row: int, now_ns: int) -> None:
        process = self._world.clock.process(live(self._world, self._requests.arriving(row, now_ns)))
        process.callbacks.append(self._ended)
        follower = int(self._follower[row])
        if follower != NONE:
            process.callbacks.append(lambda _: self._plan(follower))

    def _ended(self, _: simpy.Event) -> None:
        self._num_left -= 1
        if not self._num_left:
            self.over.succeed()

    def _plan(self, follower: int) -> None:
        """The request before it has ended."""
        heappush(self._due, (self._world.clock.now_ns + int(self._requests.gap_ns[follower]), follower))
        self._set_timer()


def _followers(requests: RequestTable) -> I32Array:
    """Of each row the one that waits for it."""
    waiting = np.flatnonzero(requests.after >= 0)
    follower = np.full(len(requests), NONE, dtype=np.int32)
    follower[requests.after[waiting]] = waiting
    return follower
