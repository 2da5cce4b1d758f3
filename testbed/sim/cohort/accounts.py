"""What a cohort run leaves: the same accounts that the per-request engine's objects give, as columns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from testbed.actors.energy import processor_energy_j
from testbed.codecs.named import size_law
from testbed.core.cast import Cast, DeviceEnd, DeviceEntry, LinkEnd, ServerEnd, ServerEntry
from testbed.core.records import Records
from testbed.core.rng import I64Array
from testbed.core.units import NS_PER_S
from testbed.network_models.transfer import Direction
from testbed.scenarios.schema import Scenario
from testbed.sim.cohort import state
from testbed.sim.cohort.build import Memory
from testbed.sim.cohort.eligible import fixed_decision
from testbed.sim.racks import always_up

_LOW_HALF = (1 << 32) - 1


def cast_records(scenario: Scenario) -> Cast:
    """Who takes part, without an object a device."""
    counts = [group.count for group in scenario.fleet]
    devices = Records(
        DeviceEntry,
        {
            "device": np.arange(sum(counts)),
            "group": np.repeat(np.array([group.name for group in scenario.fleet], object), counts),
            "kind": np.repeat(np.array([group.device.name for group in scenario.fleet], object), counts),
            "real": np.zeros(sum(counts), np.bool_),
        },
    )
    servers = [group for group in scenario.servers for _ in range(group.count)]
    return Cast(
        devices=devices,
        servers=[
            ServerEntry(server=number, group=group.name, kind=group.server.name) for number, group in enumerate(servers)
        ],
    )


def device_ends(scenario: Scenario, memory: Memory, duration_ns: int) -> Records[DeviceEnd]:
    """The account of every device of a run that took this long (testbed.actors.energy)."""
    devices = memory.devices()
    busy_ns, (sent_ns, received_ns) = (
        devices[:, state.COMPUTING_NS],
        (devices[:, _counters(direction) + state.SENDING_NS] for direction in Direction),
    )
    columns = {
        "device": np.arange(len(devices)),
        "busy_ns": busy_ns,
        "transmit_ns": sent_ns,
        "receive_ns": received_ns,
        "peak_memory_bytes": devices[:, state.PEAK_MEMORY],
        "idle_j": _powers(scenario, "idle_power") * ((duration_ns - busy_ns) / NS_PER_S),
        "compute_j": _powers(scenario, "active_power") * (busy_ns / NS_PER_S),
        "transmit_j": _powers(scenario, "transmit_power") * (sent_ns / NS_PER_S),
        "receive_j": _powers(scenario, "receive_power") * (received_ns / NS_PER_S),
    }
    parts = [columns[name].tolist() for name in ("idle_j", "compute_j", "transmit_j", "receive_j")]
    columns["energy_j"] = np.fromiter(map(math.fsum, zip(*parts, strict=True)), np.float64, len(devices))
    return Records(DeviceEnd, columns)


def link_ends(scenario: Scenario, memory: Memory) -> Records[LinkEnd]:
    """The account of both directions of every link, device by device."""
    devices = memory.devices()
    header = _each(scenario, [group.link.header for group in scenario.fleet])
    sides = [dict(_side(devices, direction, header)) for direction in Direction]
    columns = {name: np.stack([side[name] for side in sides], axis=1).ravel() for name in sides[0]}
    return Records(LinkEnd, columns)


def server_ends(scenario: Scenario, memory: Memory, duration_ns: int) -> list[ServerEnd]:
    """The account of every server."""
    groups = [group for group in scenario.servers for _ in range(group.count)]
    return [
        ServerEnd(
            server=number,
            busy_ns=int(row[state.BUSY_NS]),
            energy_j=processor_energy_j(group.server, duration_ns=duration_ns, busy_ns=int(row[state.BUSY_NS])),
            peak_kv_bytes=int(row[state.PEAK_KV]),
            operation=always_up(group.server, duration_ns),
        )
        for number, (group, row) in enumerate(zip(groups, memory.servers(), strict=True))
    ]


def _side(devices: I64Array, direction: Direction, header: I64Array) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    first = _counters(direction)

    def half(counter: int) -> I64Array:
        return (devices[:, first + counter // 2] >> (32 * (counter % 2))) & _LOW_HALF

    nothing = np.zeros(len(devices), np.int64)
    handed_over = half(state.PACKETS) + half(state.RETRANSMITTED)
    arrived = handed_over - half(state.LOST_PACKETS) - half(state.DROPPED_PACKETS)
    yield "device", np.arange(len(devices))
    yield "direction", np.full(len(devices), direction.value, object)
    yield "messages", half(state.MESSAGES)
    yield "delivered", half(state.MESSAGES) - half(state.LOST_MESSAGES)
    yield "lost", half(state.LOST_MESSAGES)
    yield "payload_bytes", devices[:, first + state.PAYLOAD_BYTES]
    yield "lost_payload_bytes", devices[:, first + state.LOST_BYTES]
    yield "wire_bytes", devices[:, first + state.WIRE_BYTES]
    yield "packets", half(state.PACKETS)
    yield "retransmissions", half(state.RETRANSMITTED)
    yield "dropped_packets", half(state.DROPPED_PACKETS)
    yield "lost_packets", half(state.LOST_PACKETS)
    yield "corrupt_packets", nothing
    yield "duplicate_packets", nothing
    yield "ack_bytes", arrived * header
    yield "busy_ns", devices[:, first + state.SENDING_NS]
    yield "peak_backlog_bytes", devices[:, first + state.PEAK_BYTES]


def _counters(direction: Direction) -> int:
    return state.UP_COUNTERS + (direction is Direction.DOWN) * state.LINK_COUNTERS


def _powers(scenario: Scenario, name: str) -> npt.NDArray[np.float64]:
    return _each(scenario, [getattr(group.device, name) for group in scenario.fleet]).astype(np.float64)


def _each(scenario: Scenario, values: list[Any]) -> npt.NDArray[Any]:
    """A group's value for each of its devices."""
    return np.repeat(np.array(values), [group.count for group in scenario.fleet])


def assumed_sizes(scenario: Scenario, num_layers: int) -> list[str]:
    """Codecs whose messages' sizes are by settings, where content would decide."""
    decisions = [fixed_decision(scenario, group, num_layers) for group in scenario.fleet]
    cut = {decision.codec for decision in decisions if decision is not None and 0 < decision.split < num_layers}
    return sorted(codec for codec in cut if not size_law(codec).is_fixed_size)
