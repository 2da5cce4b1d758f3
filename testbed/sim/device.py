"""An edge device in virtual time: its turn, its memory, its link."""

from __future__ import annotations

from dataclasses import dataclass, field

import simpy

from testbed.actors.edge import EdgeDevice
from testbed.actors.energy import device_energy_j
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
    busy: BusyTime = field(default_factory=BusyTime)
    peak_memory_bytes: int = 0
    front_session: int = -1  # whose turns' keys and values its front still holds: the last request's, if that completed

    def observe(self, clock: Clock, request: Request) -> Observation:
        """What the device knows when its turn comes."""
        return Observation(
            now_ns=clock.now_ns,
            device_kind=self.profile.name,
            memory_bytes=self.profile.memory,
            free_memory_bytes=free_bytes(self.profile),
            num_layers=self.shape.num_layers,
            prompt_tokens=request.num_prompt_tokens,
            max_output_tokens=request.max_output_tokens,
        )

    def admits(self, request: Request, decision: Decision) -> bool:
        """Whether weights, KV cache at full length and activations fit; a request that doesn't is out of memory."""
        return self._demand_bytes(request, decision) <= free_bytes(self.profile)

    def take(self, request: Request, decision: Decision) -> None:
        """The request is run: its memory is claimed."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, self._demand_bytes(request, decision))

    def end(self, duration_ns: int) -> DeviceEnd:
        """The account of a run that took this long."""
        busy_ns = self.busy.until(duration_ns)
        transmit_ns, receive_ns = (self.links.snapshot(direction).busy_ns for direction in Direction)
        energy_j = device_energy_j(
            self.profile,
            duration_ns=duration_ns,
            busy_ns=busy_ns,
            transmit_ns=transmit_ns,
            receive_ns=receive_ns,
        )
        sealer = self.edge.sealer
        return DeviceEnd(
            device=self.device,
            busy_ns=busy_ns,
            transmit_ns=transmit_ns,
            receive_ns=receive_ns,
            energy_j=energy_j,
            peak_memory_bytes=self.peak_memory_bytes,
            seal_ns=sealer.total_ns,
            seal_j=sealer.energy_j,
        )

    def _demand_bytes(self, request: Request, decision: Decision) -> int:
        tokens = request.num_prompt_tokens + request.max_output_tokens
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
