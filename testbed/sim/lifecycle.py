"""One request's journey. Read this file first: everything else serves one of its lines.

Every wait below is one span of the request's trace, so its hops add up to its end-to-end time exactly.
"""

from __future__ import annotations

import simpy

from testbed.actors.edge import Payload, token_payload
from testbed.core.events import Hop, Outcome
from testbed.core.plan import Decision
from testbed.sim.cut import Cut
from testbed.sim.journey import EndedEarlyError, Journey, ServerLostError
from testbed.sim.kernel import Wait
from testbed.sim.request_table import Request
from testbed.sim.server import Server
from testbed.sim.streaming import TokenStream
from testbed.sim.trace import Trace
from testbed.sim.world import World


def live(world: World, request: Request) -> Wait[None]:
    """From arrival to its end, which may come from outside: what interrupts it says why."""
    clock, device, trace = world.clock, world.devices[request.device], world.trace(request)
    absence = device.board(request.request)
    if absence is not None:
        trace.ended(clock.now_ns, absence.outcome, absence.finds)
        return
    try:
        yield from _answer(world, request, trace)
    except simpy.Interrupt as interrupt:
        trace.cut_short(clock.now_ns, Cut.of(interrupt.cause))
    finally:
        device.alight(request.request)


def _answer(world: World, request: Request, trace: Trace) -> Wait[None]:
    """To the last token, out of memory, or a message lost for good."""
    clock, device = world.clock, world.devices[request.device]
    if device.waking_ns:
        yield clock.timeout(device.waking_ns)
    with device.turn.request() as turn:
        yield turn
        yield world.admission.passage(request.request)
        trace.span(clock.now_ns, Hop.DEVICE_WAIT)
        decision = world.decide(request)
        if not device.admits(request, decision):
            trace.ended(clock.now_ns, Outcome.OOM, "device memory")
            return
        try:
            yield from _travel(world, request, decision, trace)
        except EndedEarlyError as end:
            trace.ended(clock.now_ns, end.outcome, str(end))


def _travel(world: World, request: Request, decision: Decision, trace: Trace) -> Wait[None]:
    """With a server, and where that fails with another, from the prompt again."""
    num_losses = 0
    while True:
        journey = yield from world.embark(request, decision, trace, num_losses)
        try:
            finish = yield from _generate(journey, journey.server) if journey.server else _generate_alone(journey)
            trace.ended(world.clock.now_ns, Outcome.COMPLETED, finish)
            world.completed(journey)
            return
        except ServerLostError as lost:
            num_losses += 1
            if not world.requeues(journey, num_losses):
                raise lost
        finally:
            world.disembark(journey)


def _generate(journey: Journey, server: Server) -> Wait[str]:
    """Prefill, then a decode step a token; where the server goes on by itself its tokens stream down meanwhile."""
    stream = TokenStream(journey)
    payload = yield from _send_up(journey)
    while True:
        token = yield from journey.serve(server, payload)
        finish = journey.choose(token)
        if finish:
            server.release(journey.request.request)
        if journey.server_goes_on:
            stream.send(token)
        else:
            yield from journey.send_down()
        if finish:
            break
        journey.trace.step += 1
        payload = token_payload(journey.step) if journey.server_goes_on else (yield from _send_up(journey))
    yield from stream.drain()
    return finish


def _generate_alone(journey: Journey) -> Wait[str]:
    """The device holds the whole model: nothing crosses the link."""
    finish = ""
    while not finish:
        journey.claim()
        whole = journey.device.edge.start_whole(journey.session, journey.step)
        yield from journey.compute(Hop.FRONT, whole.duration_ns)
        finish = journey.choose(whole.value())
        journey.deliver()
        journey.trace.step += 1
    return finish


def _send_up(journey: Journey) -> Wait[Payload]:
    """The device's share of a step, and its message to the server."""
    if journey.session.split == 0:
        payload = journey.device.edge.tokens(journey.session, journey.step)
    else:
        journey.claim()
        journey.choose_codec()
        front = journey.device.edge.start_front(journey.session, journey.step)
        yield from journey.compute(Hop.FRONT, front.duration_ns)
        payload = front.value()
        yield from journey.compute(Hop.ENCODE, payload.encode_ns)
    if payload.seal_ns:
        yield from journey.compute(Hop.SEAL, payload.seal_ns)
    return (yield from journey.send_up(payload))
