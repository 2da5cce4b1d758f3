"""Stop-and-wait, packet by packet: the next is handed over when the one before is acknowledged.

The acknowledgement leaves when the packet arrives and takes the other direction's propagation delays. A lost packet is
handed over again `timeout` after its last bit left the first port, or as soon as its loss is certain where that comes
later; one whose acknowledgement is merely late is not.

Of a delay, `window_ns` is the wait for messages before and for acknowledgements, `serialise_ns` the packets' first
transmissions, `queue_ns` their waits at the first port, and what no other part explains is `retransmit_ns`. What the
last packet met beyond the first port adds to `queue_ns` and `serialise_ns`.
"""

from __future__ import annotations

from dataclasses import dataclass

import simpy

from testbed.network_models.clock import Timer
from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import NOWHERE, Beyond, Packet, Path
from testbed.network_models.ports.round import Arrival
from testbed.network_models.transfer import Fate
from testbed.network_models.transports.packet_link import Flight, PacketLink


@dataclass(slots=True, kw_only=True, eq=False)
class _PacedFlight(Flight):
    """A message under way, or waiting for its turn."""

    next_place: int = 0  # of the packet in flight or next
    ready_ns: int = 0  # since when that one waits to be handed over
    has_begun: bool = False
    window_ns: int = 0
    queue_ns: int = 0
    serialise_ns: int = 0
    last: Packet | None = None  # the last transmission that left


class PacketPacedLink(PacketLink):
    """One direction; `reverse` is the way of the acknowledgements."""

    __slots__ = ("_current", "_max_retransmissions", "_reverse", "_timeout_ns", "_waiting")

    def __init__(
        self,
        env: simpy.Environment,
        framing: Framing,
        path: Path,
        *,
        reverse: Path,
        timeout_ns: int,
        max_retransmissions: int,
        patience_ns: int | None,
    ) -> None:
        super().__init__(env, framing, path, patience_ns=patience_ns)
        self._reverse = reverse
        self._timeout_ns = timeout_ns
        self._max_retransmissions = max_retransmissions
        self._current: _PacedFlight | None = None
        self._waiting: list[_PacedFlight] = []

    def _open(self, payload_bytes: int) -> Flight:
        return self._account(_PacedFlight, payload_bytes, *self._framing.cut(payload_bytes))

    def _begin(self, flight: Flight) -> None:
        assert isinstance(flight, _PacedFlight)
        flight.ready_ns = flight.sent_ns
        self._waiting.append(flight)
        if self._current is None:
            self._next_message()

    def _next_message(self) -> None:
        self._current = None
        while self._waiting and self._current is None:
            flight = self._waiting.pop(0)
            if not flight.is_over:  # of patience
                self._current = flight
                self._next_packet_of(flight)

    def _next_packet_of(self, flight: _PacedFlight) -> None:
        now_ns = int(self._env.now)
        if now_ns < flight.deadline_ns:
            flight.has_begun = True
            flight.attempt = 0
            flight.window_ns += now_ns - flight.ready_ns
            self._transmit(flight, (flight.first_packet + flight.next_place,))

    def left(self, packet: Packet, left_ns: int) -> None:
        flight = packet.content
        assert isinstance(flight, _PacedFlight)
        flight.last = packet
        if packet.attempt == 0:
            flight.queue_ns += packet.queue_ns
            flight.serialise_ns += left_ns - packet.start_ns
        super().left(packet, left_ns)

    def _round_left(self, flight: Flight) -> None:
        if flight.is_over and flight is self._current:
            self._release(flight)

    def _missed(self, flight: Flight, packet: Packet, gone_ns: int | None) -> None:
        assert isinstance(flight, _PacedFlight)
        now_ns = int(self._env.now)
        Timer(self._env, max(0, flight.end_ns + self._timeout_ns - now_ns), lambda _: self._repeat(flight))

    def _repeat(self, flight: _PacedFlight) -> None:
        now_ns = int(self._env.now)
        if flight.is_over or now_ns >= flight.deadline_ns:
            return
        if flight.attempt < self._max_retransmissions:
            flight.attempt += 1
            self._transmit(flight, (flight.first_packet + flight.next_place,))
        else:
            self._end(flight, now_ns, Fate.TIMEOUT)
            self._next_message()

    def _came(self, flight: Flight, packet: Arrival) -> None:
        assert isinstance(flight, _PacedFlight)
        self._ack_bytes += self._framing.header_bytes
        if flight.is_over:
            return
        flight.next_place += 1
        flight.ready_ns = packet.packet().left_ns
        if flight.num_arrived == flight.num_packets:
            self._end(flight, int(self._env.now), Fate.DELIVERED)
        Timer(self._env, self._reverse.propagation_ns, lambda _: self._acknowledged(flight))

    def _acknowledged(self, flight: _PacedFlight) -> None:
        if flight is not self._current:
            return
        if flight.num_arrived == flight.num_packets:
            self._next_message()
        elif not flight.is_over:
            self._next_packet_of(flight)

    def _lose_patience(self, flight: Flight) -> None:
        assert isinstance(flight, _PacedFlight)
        if not flight.is_over:
            self._end(flight, flight.deadline_ns, Fate.TIMEOUT)
            if flight is self._current and not flight.num_held:
                self._release(flight)

    def _release(self, flight: Flight) -> None:
        """A message was given up: the next one's turn comes when the port has sent what it has of this one."""
        Timer(self._env, max(0, flight.end_ns - int(self._env.now)), lambda _: self._next_message())

    def _end(self, flight: _PacedFlight, ended_ns: int, fate: Fate) -> None:
        last, window_ns, beyond = flight.last, flight.window_ns, NOWHERE
        if not flight.has_begun:
            window_ns = ended_ns - flight.sent_ns
        elif last is not None and fate is Fate.DELIVERED:
            beyond = last.beyond(ended_ns)
        elif last is not None and last.attempt == 0:  # it may still be leaving
            late_ns = max(0, last.left_ns - ended_ns)
            serialise_late_ns = min(late_ns, last.left_ns - last.start_ns)
            beyond = Beyond(serialise_late_ns - late_ns, -serialise_late_ns, 0, 0)
        self._settle(flight, ended_ns, fate, flight.queue_ns, flight.serialise_ns, beyond=beyond, window_ns=window_ns)
