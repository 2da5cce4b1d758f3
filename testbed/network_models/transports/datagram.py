"""Datagrams: nobody repeats, so a message that misses a packet is lost.

The packets are handed to the queue back to back. The message is complete when the last of them arrives. It is lost
where one was dropped by a full queue or lost beyond it, and ends when its last packet, had it arrived, would have: last
bit out of what the queue took, plus the propagation delay, plus jitter; at once, where it took nothing.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import Path
from testbed.network_models.transports.bursts import BurstLink, Flight
from testbed.network_models.transports.packet_once import PacketOnceLink
from testbed.network_models.transports.transport import Access
from testbed.scenarios.pieces import TransportConfig


class Datagram:
    """Loss is final."""

    class Config(TransportConfig):
        kind: Literal["datagram"] = "datagram"

    def __init__(self, config: Config) -> None:
        pass

    def over_messages(self, env: simpy.Environment, up: Channel, down: Channel) -> Access:
        return Access(DatagramLink(env, up), DatagramLink(env, down))

    def over_packets(self, env: simpy.Environment, framing: Framing, up: Path, down: Path) -> Access:
        return Access(PacketOnceLink(env, framing, up), PacketOnceLink(env, framing, down))


class DatagramLink(BurstLink):
    """One direction."""

    __slots__ = ()

    _checks: ClassVar[bool] = False

    def _launch(self, flight: Flight) -> None:
        first = flight.first_packet
        burst, missing = self._hand_over(flight, range(first, first + flight.num_packets), flight.last_packet_bytes)
        flight.first_start_ns, flight.first_end_ns = burst.start_ns, burst.end_ns
        flight.is_corrupt = bool(flight.corrupt)
        if missing:
            self._lose(flight, burst.end_ns)
        else:
            self._deliver(flight, burst.end_ns)
