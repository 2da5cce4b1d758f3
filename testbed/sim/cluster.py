"""The servers together: who is up, who gets a request, what happens when one fails.

States. A server of a group without autoscaling is up from the start. One with it is off, starting for `cold_start`,
up, draining until its last request has left, and off again (testbed/sim/scaling.py). All changes happen at the
beginning of their instant (Rank.SERVER_STATE, by server), except that a drained server is off when its last request
leaves, and that autoscalers order at the end of an instant; a start that takes no time is over within it.

Failures [our own design]. A server's place breaks on its schedule and at random, whatever its state: times up and times
down are exponential, number i drawn as mean times portable.exponential for (0, i) and (1, i) of the stream
``server.<group>.<place>.failures``, each rounded to a whole nanosecond and at least 1. A place that is broken can't be
started before it is repaired. An up or starting server that breaks is down, and up again when it is repaired,
without a cold start (the repair includes it); a draining one is off. All keys and values, kept messages, queues and the
iteration under way are lost with it; what its tokens streamed down before is on its way.

Requests of a failed server learn of it when they are there, waiting or in the iteration, at the instant of the
failure; otherwise when their next message gets there, though the server may be up again by then. With `on_failure:
fail` they end as `server_failure`. With `requeue` they are routed again at that instant, by the router, and begin anew
with the prompt: its message can't be had from anywhere but the device, which computes, encodes and sends it again.
Tokens generated again are delivered once. After `max_requeues` such losses the request ends.

Health. The router takes a failed server for up until `health_delay` is over, and a repaired one for down as long; it
also knows of the failure when the first request has found the server down. A request sent to a server that is down is
lost as above when its first message gets there, unless the server is up by then.

Nobody up. A request that finds no server offered waits at the router (hop ``router_wait``; its device waits with it)
while one that could hold it may come: starting, repaired some day, or startable by an autoscaler. With every change of
a server those who wait are asked again in the order of their numbers. Where none may come it ends as `server_failure`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import simpy

from testbed.core.events import EventSink, Outcome, ServerChanged
from testbed.core.portable import exponential
from testbed.core.registry import ROUTERS
from testbed.core.rng import Stream
from testbed.core.work import KvDemand
from testbed.network_models.connections import Connections
from testbed.network_models.rates.segments import FOREVER
from testbed.network_models.topology.failures import Failures
from testbed.scenarios.schema import Scenario, Servers
from testbed.schedulers.routing import Ask, Candidate, Router
from testbed.sim.journey import TurnedAwayError
from testbed.sim.kernel import Clock, Gate, Rank, Wait
from testbed.sim.placement import Distances
from testbed.sim.request_table import Request
from testbed.sim.server import Server
from testbed.sim.slots import ServerState, Slot


class Cluster:
    """All servers. `members` are their groups and places in these, by server number."""

    def __init__(
        self,
        clock: Clock,
        scenario: Scenario,
        servers: Sequence[Server],
        members: Sequence[tuple[Servers, int]],
        *,
        distances: Distances,
        admission: Gate,
        emit: EventSink,
    ) -> None:
        self._clock = clock
        self._groups = scenario.servers
        self._health_delay_ns = scenario.router.health_delay
        self._router: Router = ROUTERS.load(scenario.router.kind)(scenario.router, scenario.seed)
        self._distances = distances
        self._admission = admission
        self._emit = emit
        self._changed = clock.event()  # of anything that those who wait should know
        self._held: dict[int, int] = {}  # requests that wait at the router -> group that is to come
        self.slots = [_slot(server, scenario, *member) for server, member in zip(servers, members, strict=True)]
        self.is_watched = any(group.can_fail or group.autoscale is not None for group in scenario.servers)
        for slot in self.slots:
            self._begin(slot)

    def place(self, request: Request, links: Connections, demand: KvDemand, attempt: int) -> Wait[Server]:
        """The server that gets the request, which may have to wait for one.

        Raises TurnedAwayError where none could ever hold it, or none will ever take it.
        """
        able = [slot for slot in self.slots if slot.server.fits_ever(demand) and links.reaches(slot.number)]
        if not able:
            raise TurnedAwayError("server memory", Outcome.OOM)
        while True:
            offered = [slot for slot in able if slot.is_offered]
            if offered:
                return self._chosen(request, attempt, offered)
            coming = next((slot for slot in able if slot.may_come(self._clock.now_ns)), None)
            if coming is None:
                raise TurnedAwayError("no server takes requests any more", Outcome.SERVER_FAILURE)
            self._held[request.request] = coming.group
            try:
                yield self._changed
                yield self._admission.passage(request.request)
            finally:
                del self._held[request.request]

    def num_held(self, group: int) -> int:
        """Requests that wait at the router for a server of this group: the first that may come and could hold them."""
        return sum(held == group for held in self._held.values())

    def left(self, server: Server) -> None:
        """A request has left it."""
        slot = self.slots[server.server]
        if slot.state is ServerState.DRAINING and not server.num_outstanding:
            self._enter(slot, ServerState.OFF)

    def found_lost(self, server: Server) -> None:
        """A request has found that it failed: the router knows it too."""
        if server.is_down:
            self._offer(self.slots[server.server], is_offered=False)

    def may_requeue(self, server: Server, num_losses: int) -> bool:
        """Whether a request that was lost with it, after so many losses with this one, may look for another."""
        group = self._groups[self.slots[server.server].group]
        return group.on_failure == "requeue" and num_losses <= group.max_requeues

    def start(self, slot: Slot, cold_start_ns: int) -> None:
        """Take a draining server back, or start one that is off."""
        if slot.state is ServerState.DRAINING:
            self._up(slot)
            return
        self._enter(slot, ServerState.STARTING)
        started = self._clock.at(cold_start_ns, Rank.SERVER_STATE, slot.number)
        self._unless_turned(started, slot, partial(self._up, slot))

    def stop(self, slot: Slot) -> None:
        """No new requests for it; it is off once the last one has left, at once if it was only starting."""
        self._offer(slot, is_offered=False)
        is_idle = slot.state is ServerState.STARTING or not slot.server.num_outstanding
        self._enter(slot, ServerState.OFF if is_idle else ServerState.DRAINING)

    def _chosen(self, request: Request, attempt: int, offered: Sequence[Slot]) -> Server:
        candidates = [
            Candidate(
                slot.number,
                slot.server.num_outstanding,
                self._distances.between_ns(request.device, slot.number),
            )
            for slot in offered
        ]
        ask = Ask(request=request.request, attempt=attempt, session=request.session)
        return self.slots[self._router.choose(ask, candidates)].server

    def _begin(self, slot: Slot) -> None:
        if self._groups[slot.group].can_fail or slot.is_scaled:
            self._emit(ServerChanged(time_ns=0, server=slot.number, state=slot.state))
        if slot.failures is not None:
            if slot.is_broken(0):
                self._break(slot)
            self._await_turn(slot)

    def _await_turn(self, slot: Slot) -> None:
        """For the next failure or repair of its place, if there is one."""
        assert slot.failures is not None, "it can fail"
        now_ns = self._clock.now_ns
        next_ns = slot.failures.next_change_ns(now_ns)
        if next_ns < FOREVER:
            due = self._clock.at(next_ns - now_ns, Rank.SERVER_STATE, slot.number)
            _then(due, partial(self._take_turn, slot))

    def _take_turn(self, slot: Slot) -> None:
        if slot.is_broken(self._clock.now_ns):
            self._break(slot)
        elif slot.state is ServerState.DOWN:
            self._enter(slot, ServerState.UP)
            slot.server.repair()
            if not slot.is_offered:
                self._when_known(slot, is_offered=True)
        self._await_turn(slot)

    def _break(self, slot: Slot) -> None:
        if slot.state is ServerState.OFF:
            return
        slot.num_failures += 1
        slot.server.fail()
        if slot.state is ServerState.DRAINING:
            self._enter(slot, ServerState.OFF)
            return
        self._enter(slot, ServerState.DOWN)
        self._when_known(slot, is_offered=False)
        self._tell_waiting()

    def _when_known(self, slot: Slot, *, is_offered: bool) -> None:
        offer = partial(self._offer, slot, is_offered=is_offered)
        if not self._health_delay_ns:
            offer()
            return
        known = self._clock.at(self._health_delay_ns, Rank.SERVER_STATE, slot.number)
        self._unless_turned(known, slot, offer)

    def _unless_turned(self, event: simpy.Event, slot: Slot, action: Callable[[], None]) -> None:
        """At the event, unless the slot has changed meanwhile."""
        turn = slot.turn
        _then(event, lambda: action() if slot.turn == turn else None)

    def _up(self, slot: Slot) -> None:
        self._enter(slot, ServerState.UP)
        slot.server.repair()
        self._offer(slot, is_offered=True)

    def _offer(self, slot: Slot, *, is_offered: bool) -> None:
        slot.is_offered = is_offered
        if is_offered:
            self._tell_waiting()

    def _enter(self, slot: Slot, state: ServerState) -> None:
        slot.enter(state, self._clock.now_ns)
        self._emit(ServerChanged(time_ns=self._clock.now_ns, server=slot.number, state=state))

    def _tell_waiting(self) -> None:
        if self._held:
            changed, self._changed = self._changed, self._clock.event()
            changed.succeed()


def _then(event: simpy.Event, action: Callable[[], None]) -> None:
    assert event.callbacks is not None, "it lies ahead"
    event.callbacks.append(lambda _: action())


def _slot(server: Server, scenario: Scenario, group: Servers, place: int) -> Slot:
    is_up = place < group.count
    return Slot(
        server=server,
        group=scenario.servers.index(group),
        failures=_failures(scenario.seed, group, place) if group.can_fail else None,
        state=ServerState.UP if is_up else ServerState.OFF,
        is_offered=is_up,
        is_scaled=group.autoscale is not None,
    )


def _failures(seed: int, group: Servers, place: int) -> Failures:
    scheduled = [
        (down.at, FOREVER if down.until is None else down.until) for down in group.down if down.server == place
    ]
    if group.failures is None:
        return Failures(scheduled, None)
    stream = Stream.named(seed, f"server.{group.name}.{place}.failures")
    mean_up, mean_down = group.failures.mean_up, group.failures.mean_down

    def draw(number: int) -> tuple[int, int]:
        up, down = (exponential(stream, side, number) for side in (0, 1))
        return max(1, round(mean_up * up)), max(1, round(mean_down * down))

    return Failures(scheduled, draw)
