"""Selective repeat, packet by packet: the round law of `selective_repeat`, told by events.

A packet that was lost, or dropped by a queue anywhere on the path, is handed over again `timeout` after its round's
last bit left the first port, or as soon as its loss is certain where that comes later. Packets still on their way are
not repeated: the time-out stands for a timer above the round trip, and acknowledgements take no time.
"""

from __future__ import annotations

import simpy

from testbed.network_models.clock import Timer
from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import Packet, Path
from testbed.network_models.ports.round import Arrival
from testbed.network_models.transfer import Fate
from testbed.network_models.transports.packet_link import Flight, PacketLink


class PacketRepeatLink(PacketLink):
    """One direction of a link with selective repeat."""

    __slots__ = ("_max_retransmissions", "_timeout_ns")

    def __init__(
        self,
        env: simpy.Environment,
        framing: Framing,
        path: Path,
        *,
        timeout_ns: int,
        max_retransmissions: int,
        patience_ns: int | None,
    ) -> None:
        super().__init__(env, framing, path, patience_ns=patience_ns)
        self._timeout_ns = timeout_ns
        self._max_retransmissions = max_retransmissions

    def _begin(self, flight: Flight) -> None:
        self._transmit(flight, flight.packets)

    def _came(self, flight: Flight, packet: Arrival) -> None:
        self._ack_bytes += self._framing.header_bytes
        if flight.num_arrived == flight.num_packets and not flight.is_over:
            self._settle_by(flight, packet.packet(), int(self._env.now), Fate.DELIVERED)

    def _missed(self, flight: Flight, packet: Packet, gone_ns: int | None) -> None:
        flight.missing.append(packet.number)
        if not flight.num_held:
            self._arm(flight)

    def _round_left(self, flight: Flight) -> None:
        if flight.missing:
            self._arm(flight)

    def _arm(self, flight: Flight) -> None:
        """Something is missing of a round that has left: it is repeated, or the message is given up."""
        if flight.is_armed or flight.is_over:
            return
        now_ns = int(self._env.now)
        due_ns = max(flight.end_ns + self._timeout_ns, now_ns)
        if flight.attempt < self._max_retransmissions and due_ns < flight.deadline_ns:
            flight.is_armed = True
            Timer(self._env, due_ns - now_ns, lambda _: self._repeat(flight))
        else:
            self._settle_unsent(flight, min(due_ns, flight.deadline_ns), Fate.TIMEOUT)

    def _repeat(self, flight: Flight) -> None:
        packets, flight.missing = sorted(flight.missing), []
        flight.is_armed = False
        flight.attempt += 1
        self._transmit(flight, packets)
