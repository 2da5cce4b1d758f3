"""An edge device in virtual time: its turn, its memory, its link."""

from __future__ import annotations

from dataclasses import dataclass

import simpy

from testbed.actors.edge import EdgeDevice
from testbed.actors.energy import device_energy
from testbed.actors.kv import KVLaw
from testbed.actors.memory import edge_demand, free_bytes
from testbed.actors.modes import crossing_of
from testbed.actors.weights import WeightLaw
from testbed.core.cast import DeviceEnd, LinkEnd
from testbed.core.plan import Decision, Observation
from testbed.models.shape import ModelShape
from testbed.network_models.connections import Connections
from testbed.network_models.transfer import Direction, LinkSnapshot
from testbed.scenarios.profiles import DeviceProfile
from testbed.sim.kernel import BusyTime, Clock
from testbed.sim.request_table import Request
from testbed.sim.vitals import Absence
from testbed.sim.watch import Watch


@dataclass(slots=True, kw_only=True)
class Device:
    """One device; it answers one request at a time, later ones wait for their turn."""

    device: int
    profile: DeviceProfile
    shape: ModelShape
    weights: WeightLaw
    kv: KVLaw
    back_kv: KVLaw  # of the layers behind the cut, where the device keeps these for the server
    edge: EdgeDevice
    links: Connections
    turn: simpy.Resource
    busy: BusyTime
    watch: Watch | None = None  # None: it is always there and nothing changes in it
    claims_as_used: bool = False  # memory for keys and values token by token, else at full length at admission
    peak_memory_bytes: int = 0
    front_session: int = -1  # whose turns' keys and values its front still holds: the last request's, if that completed
    _claimant: tuple[Request, Decision] | None = None

    def observe(self, clock: Clock, request: Request) -> Observation:
        """What the device knows when its turn comes."""
        return Observation(
            now_ns=clock.now_ns,
            device_kind=self.profile.name,
            memory_bytes=self.profile.memory,
            free_memory_bytes=self._free_bytes(),
            num_layers=self.shape.num_layers,
            prompt_tokens=request.num_prompt_tokens,
            max_output_tokens=request.max_output_tokens,
        )

    def board(self, request: int) -> Absence | None:
        """A request has come: why it can't stay, where the device is away. The process at work is the request's."""
        if self.watch is None:
            return None
        absence = self.watch.board(request)
        if self.watch.has_been_off():
            self.front_session = -1
        return absence

    def alight(self, request: int) -> None:
        """A request has ended, however it did."""
        if self.watch is not None:
            self.watch.alight(request)

    @property
    def waking_ns(self) -> int:
        """Until it is awake."""
        return 0 if self.watch is None else self.watch.waking_ns

    @property
    def silence_ns(self) -> int:
        """How long servers don't learn that it is gone; 0 where it isn't."""
        return 0 if self.watch is None else self.watch.silence_ns()

    def start_stage(self, now_ns: int, duration_ns: int) -> int:
        """A stage begins that takes so long on an idle, cool device: how long it takes on this one."""
        lasts_ns = duration_ns if self.watch is None else self.watch.start_stage(duration_ns)
        self.busy.start(now_ns, lasts_ns)
        return lasts_ns

    def rest(self) -> None:
        """The stage has ended."""
        if self.watch is not None:
            self.watch.rest()

    def heard(self) -> None:
        """A message, up or down, has ended."""
        if self.watch is not None:
            self.watch.heard()

    def admits(self, request: Request, decision: Decision) -> bool:
        """Whether weights, KV cache and activations fit beside other programs; what doesn't is out of memory."""
        return self._demand_bytes(decision, self._first_tokens(request)) <= self._free_bytes()

    def take(self, request: Request, decision: Decision) -> None:
        """The request is run: its memory is claimed."""
        self._claim(request, decision, self._first_tokens(request))

    def grows_to(self, tokens: int) -> bool:
        """Whether the sequence still fits when it is this long; where it does, that memory is claimed."""
        if not self.claims_as_used:
            return True
        assert self._claimant is not None, "a request is on the device"
        request, decision = self._claimant
        if self._demand_bytes(decision, tokens) > self._free_bytes():
            return False
        self._claim(request, decision, tokens)
        return True

    def end(self, duration_ns: int) -> DeviceEnd:
        """The account of a run that took this long."""
        busy_ns = self.busy.until(duration_ns)
        transmit_ns, receive_ns = (self.links.snapshot(direction).busy_ns for direction in Direction)
        state = None
        energy = device_energy(
            self.profile, duration_ns=duration_ns, busy_ns=busy_ns, transmit_ns=transmit_ns, receive_ns=receive_ns
        )
        if self.watch is not None:
            self.watch.account(duration_ns)
            energy, state = self.watch.vitals.account.energy, self.watch.vitals.end()
        sealer = self.edge.sealer
        return DeviceEnd(
            device=self.device,
            busy_ns=busy_ns,
            transmit_ns=transmit_ns,
            receive_ns=receive_ns,
            energy_j=energy.total_j,
            peak_memory_bytes=self.peak_memory_bytes,
            idle_j=energy.idle_j,
            compute_j=energy.compute_j,
            transmit_j=energy.transmit_j,
            receive_j=energy.receive_j,
            seal_ns=sealer.total_ns,
            seal_j=sealer.energy_j,
            state=state,
        )

    def _first_tokens(self, request: Request) -> int:
        """What a request claims memory for when it is admitted."""
        return request.num_prompt_tokens + (0 if self.claims_as_used else request.max_output_tokens)

    def _claim(self, request: Request, decision: Decision, tokens: int) -> None:
        self._claimant = (request, decision)
        demand_bytes, room_bytes = self._demand_bytes(decision, tokens), free_bytes(self.profile)
        self.peak_memory_bytes = max(self.peak_memory_bytes, demand_bytes)
        if self.watch is not None:
            self.watch.hold(request.request, lambda others_bytes: demand_bytes <= room_bytes - others_bytes)

    def _free_bytes(self) -> int:
        others_bytes = 0 if self.watch is None else self.watch.others_bytes()
        return max(0, free_bytes(self.profile) - others_bytes)

    def _demand_bytes(self, decision: Decision, tokens: int) -> int:
        kept_bytes = crossing_of(self.shape, decision, self.back_kv).kept_bytes(self.shape, tokens)
        return edge_demand(self.shape, decision.split, tokens, self.weights, self.kv).total_bytes + kept_bytes

    def link_ends(self) -> list[LinkEnd]:
        """The account of both directions of its link."""
        return [_link_end(self.device, direction, self.links.snapshot(direction)) for direction in Direction]


def _link_end(device: int, direction: Direction, counters: LinkSnapshot) -> LinkEnd:
    return LinkEnd(
        device=device,
        direction=direction.value,
        messages=counters.messages,
        delivered=counters.delivered,
        lost=counters.lost,
        payload_bytes=counters.payload_bytes,
        lost_payload_bytes=counters.lost_payload_bytes,
        wire_bytes=counters.wire_bytes,
        packets=counters.packets,
        retransmissions=counters.retransmissions,
        dropped_packets=counters.dropped_packets,
        lost_packets=counters.lost_packets,
        corrupt_packets=counters.corrupt_packets,
        duplicate_packets=counters.duplicate_packets,
        ack_bytes=counters.ack_bytes,
        busy_ns=counters.busy_ns,
        peak_backlog_bytes=counters.peak_backlog_bytes,
    )
