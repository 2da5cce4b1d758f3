"""The same scenario by the simulator: modelled devices and server with the profiles of this machine.

Devices that share a process of the emulation share its core, and so they do here: a stage begins when the stages before
it on that core are through. Everything else is the testbed's own law.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from testbed.actors.edge import EdgeDevice, Payload, Session, Step
from testbed.core.events import Event, RequestArrived, RequestEnded, TokenDelivered
from testbed.core.work import Ticket
from testbed.run import Prepared
from testbed.scenarios.profiles import DeviceProfile, ServerProfile
from testbed.scenarios.schema import Scenario
from testbed.sim.kernel import Clock
from testbed.sim.request_table import RequestTable
from testbed.sim.simulate import simulate
from testbed.sim.world import World
from testbed.studies.local.emulate import share_of
from testbed.studies.local.plan import Timing


class _Core:
    """One core of this machine: when what it has been given is through."""

    def __init__(self) -> None:
        self.free_ns = 0


class SharedCoreDevice(EdgeDevice):
    """A device whose stages wait for the core that it shares; layers and encoding are one stage."""

    def __init__(self, edge: EdgeDevice, core: _Core, clock: Clock) -> None:
        self._edge, self._core, self._clock = edge, core, clock
        self.sealer = edge.sealer

    def start_front(self, session: Session, step: Step) -> Ticket[Payload]:
        ticket = self._edge.start_front(session, step)
        payload = ticket.value()
        now_ns = self._clock.now_ns
        end_ns = max(now_ns, self._core.free_ns) + ticket.duration_ns + payload.encode_ns
        self._core.free_ns = end_ns
        return Ticket(end_ns - now_ns, lambda: replace(payload, encode_ns=0))


class _Times:
    """Keeps what the comparison needs of a run's events."""

    def __init__(self) -> None:
        self.arrival_ns: dict[int, int] = {}
        self.tokens_ns: dict[int, list[int]] = {}
        self.problems: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, TokenDelivered):
            self.tokens_ns[event.request].append(event.time_ns)
        elif isinstance(event, RequestArrived):
            self.arrival_ns[event.request], self.tokens_ns[event.request] = event.time_ns, []
        elif isinstance(event, RequestEnded) and event.outcome != "completed":
            self.problems.append(f"request {event.request}: {event.outcome} ({event.reason})")


def modelled_scenario(scenario: Scenario, device: DeviceProfile, server: ServerProfile, one_way_ns: int) -> Scenario:
    """The scenario with modelled groups on this machine's profiles; links take at least what the loopback takes."""
    fleet = [
        group.model_copy(
            update={
                "compute": "modelled",
                "device": device,
                "link": group.link.model_copy(
                    update={"propagation_delay": max(group.link.propagation_delay, one_way_ns)}
                ),
            }
        )
        for group in scenario.fleet
    ]
    servers = [entry.model_copy(update={"server": server}) for entry in scenario.servers]
    return scenario.model_copy(update={"fleet": fleet, "servers": servers})


def model(scenario: Scenario, prepared: Prepared, requests: RequestTable, processes: int) -> list[Timing]:
    """Simulate a `modelled_scenario` with the requests of the emulated run."""
    times = _Times()
    world = World(scenario, prepared.source, executor=None, emit=times, payload_law=prepared.payload_law)
    cores = [_Core() for _ in range(processes)]
    for device in world.devices:
        device.edge = SharedCoreDevice(device.edge, cores[share_of(device.device, processes)], world.clock)
    simulate(world, _unread(requests))
    return [
        Timing(request=request, arrival_ns=arrival_ns, tokens_ns=tuple(times.tokens_ns[request]))
        for request, arrival_ns in sorted(times.arrival_ns.items())
    ]


def _unread(requests: RequestTable) -> RequestTable:
    """The same requests of modelled groups: their lengths count."""
    prompts: Sequence[object] = [replace(prompts, is_real=False) for prompts in requests.prompts]
    return replace(requests, prompts=prompts)  # type: ignore[arg-type]
