"""Run a world: requests enter at their arrival, the clock goes on until nothing is left to happen."""

from __future__ import annotations

from testbed.core.collector import rare_collections
from testbed.sim.kernel import Wait
from testbed.sim.lifecycle import live
from testbed.sim.requests import RequestTable
from testbed.sim.world import World


def simulate(world: World, requests: RequestTable, *, stop_at_ns: int | None = None) -> None:
    """Advance virtual time until every request has ended; with `stop_at_ns`, to that instant whatever happens.

    What would happen at `stop_at_ns` itself does not happen any more. `requests` are in arrival order.
    """
    arrivals = world.clock.process(_arrive(world, requests))
    with rare_collections():
        world.clock.run(until=stop_at_ns)
    world.check()
    if stop_at_ns is None:
        assert arrivals.processed, "every request has entered"


def _arrive(world: World, requests: RequestTable) -> Wait[None]:
    """Requests of one instant enter in the order of their numbers."""
    for request in requests:
        if request.arrival_ns > world.clock.now_ns:
            yield world.clock.timeout(request.arrival_ns - world.clock.now_ns)
        world.clock.process(live(world, request))
