"""Datagrams, with forward error correction or without, packet by packet: all packets of a message go once.

A message is blocks of data packets, each followed by its parity packets; as many packets of a block as it has data
packets give the block back, whichever they are. A datagram is one block without parity. The message is complete when
the packet arrives that completes its last block. Otherwise it is lost, and ends when the last of its packets that left
the sender arrives or would have; at once, where none left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import simpy

from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import Packet, Path
from testbed.network_models.ports.round import Arrival
from testbed.network_models.transfer import Fate
from testbed.network_models.transports.packet_link import Flight, PacketLink


@dataclass(slots=True, kw_only=True, eq=False)
class _CodedFlight(Flight):
    """A message under way: how far its blocks are, and the latest of the packets whose fate is known."""

    num_needed: list[int] = field(default_factory=list)  # more packets, by block
    num_open: int = 0  # blocks that need more
    num_known: int = 0  # packets whose fate is known
    latest: Packet | None = None
    latest_ns: int = 0


class PacketOnceLink(PacketLink):
    """One direction; without `num_data` a message is one block."""

    __slots__ = ("_num_data", "_num_parity")

    _checks: ClassVar[bool] = False

    def __init__(
        self,
        env: simpy.Environment,
        framing: Framing,
        path: Path,
        *,
        num_data: int | None = None,
        num_parity: int = 0,
    ) -> None:
        super().__init__(env, framing, path)
        self._num_data = num_data  # packets a block
        self._num_parity = num_parity

    def _open(self, payload_bytes: int) -> Flight:
        """A parity packet is as large as the largest data packet of its block."""
        parity, (num_data, last_bytes) = self._num_parity, self._framing.cut(payload_bytes)
        whole, rest = divmod(num_data, self._num_data or num_data)
        needed = [self._num_data or num_data] * whole + [rest] * (rest > 0)
        num_packets, num_short = num_data + len(needed) * parity, 1 + parity * (needed[-1] == 1)
        flight = self._account(
            _CodedFlight, payload_bytes, num_packets, last_bytes, num_behind=parity, num_short=num_short
        )
        flight.num_needed, flight.num_open = needed, len(needed)
        return flight

    def _begin(self, flight: Flight) -> None:
        self._transmit(flight, flight.packets)

    def _round_left(self, flight: Flight) -> None:
        """Nobody repeats."""

    def _missed(self, flight: Flight, packet: Packet, gone_ns: int | None) -> None:
        assert isinstance(flight, _CodedFlight)
        self._know(flight, packet, gone_ns)

    def _came(self, flight: Flight, packet: Arrival) -> None:
        assert isinstance(flight, _CodedFlight)
        packet, now_ns, block = packet.packet(), int(self._env.now), 0
        if self._num_data is not None:
            block = (packet.number - flight.first_packet) // (self._num_data + self._num_parity)
        flight.is_corrupt |= packet.is_corrupt and flight.num_needed[block] > 0
        flight.num_needed[block] -= 1
        if flight.num_needed[block] == 0:
            flight.num_open -= 1
            if flight.num_open == 0:
                self._settle_by(flight, packet, now_ns, Fate.DELIVERED)
        self._know(flight, packet, now_ns)

    def _know(self, flight: _CodedFlight, packet: Packet, end_ns: int | None) -> None:
        """One more packet's fate; after the last one's, a message that isn't complete is lost."""
        flight.num_known += 1
        if end_ns is not None:  # of those that come out together the one that left last
            latest_left_ns = -1 if flight.latest is None else flight.latest.left_ns
            if (end_ns, packet.left_ns) > (flight.latest_ns, latest_left_ns):
                flight.latest, flight.latest_ns = packet, end_ns
        if flight.num_known < flight.num_packets or flight.is_over:
            return
        if flight.latest is None:
            self._settle_unsent(flight, int(self._env.now), Fate.LOST)
        else:
            self._settle_by(flight, flight.latest, flight.latest_ns, Fate.LOST)
