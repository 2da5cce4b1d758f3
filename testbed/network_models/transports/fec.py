"""Datagrams with forward error correction: blocks of data packets, each followed by parity packets.

The code is systematic and maximum distance separable, as Reed and Solomon's is: any `data` packets of a block give the
block back. The last block of a message may have fewer data packets and still has all its parity. A parity packet is as
large as the largest data packet of its block. A block's packets follow each other; all of a message are handed to the
queue back to back. Nobody repeats.

The message is complete when the packet arrives that completes its last block. Where a block can't be had back the
message is lost, and ends when its last packet, had it arrived, would have (as a datagram does).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import ClassVar, Literal, NamedTuple

import simpy
from pydantic import Field

from testbed.network_models.channel import Channel
from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import Path
from testbed.network_models.queues.transmitter import Burst
from testbed.network_models.transports.bursts import BurstLink, Flight
from testbed.network_models.transports.packet_once import PacketOnceLink
from testbed.network_models.transports.transport import Access
from testbed.scenarios.pieces import TransportConfig


class ForwardErrorCorrection:
    """`parity` packets behind every `data`: as many losses in a block do no harm."""

    class Config(TransportConfig):
        kind: Literal["fec"] = "fec"
        data: int = Field(ge=1, le=128)
        parity: int = Field(ge=1, le=127)  # together at most 255, the length of a code over bytes

    def __init__(self, config: Config) -> None:
        self._config = config

    def over_messages(self, env: simpy.Environment, up: Channel, down: Channel) -> Access:
        return Access(*(FecLink(env, channel, self._config) for channel in (up, down)))

    def over_packets(self, env: simpy.Environment, framing: Framing, up: Path, down: Path) -> Access:
        num_data, num_parity = self._config.data, self._config.parity
        return Access(
            *(PacketOnceLink(env, framing, path, num_data=num_data, num_parity=num_parity) for path in (up, down))
        )


class FecLink(BurstLink):
    """One direction."""

    __slots__ = ("_config",)

    _checks: ClassVar[bool] = False

    def __init__(self, env: simpy.Environment, channel: Channel, config: ForwardErrorCorrection.Config) -> None:
        super().__init__(env, channel)
        self._config = config

    def _launch(self, flight: Flight) -> None:
        """Packets are numbered as they are sent, parity among them."""
        config = self._config
        earlier_blocks = (flight.num_packets - 1) // config.data
        last_data = flight.num_packets - earlier_blocks * config.data  # data packets of the last block
        flight.num_packets += (earlier_blocks + 1) * config.parity
        pieces = self._hand_over_blocks(flight, last_data)
        missing = {packet - flight.first_packet for piece in pieces for packet in piece.missing}
        took = [piece.burst for piece in pieces if piece.burst.wire_bytes] or [pieces[0].burst]
        flight.first_start_ns, flight.first_end_ns = took[0].start_ns, took[-1].end_ns
        per_block = Counter(packet // (config.data + config.parity) for packet in missing)
        if max(per_block.values(), default=0) > config.parity:
            self._lose(flight, flight.first_end_ns)
            return
        last_block = range(earlier_blocks * (config.data + config.parity), flight.num_packets)
        arrived = [packet for packet in last_block if packet not in missing]
        flight.first_end_ns = self._left_ns(pieces, arrived[last_data - 1])
        flight.is_corrupt = any(
            self._is_used(packet - flight.first_packet, missing, last_block, last_data) for packet in flight.corrupt
        )
        self._deliver(flight, flight.first_end_ns)

    def _is_used(self, place: int, missing: Collection[int], last_block: range, last_data: int) -> bool:
        """Whether a packet is among those that its block is had back from: as many as first arrive and are needed."""
        index = place % (self._config.data + self._config.parity)
        needed = last_data if place in last_block else self._config.data
        return sum(earlier not in missing for earlier in range(place - index, place)) < needed

    def _hand_over_blocks(self, flight: Flight, last_data: int) -> list[_Piece]:
        """All blocks back to back: full-size packets up to the last data packet, that one, and its block's parity."""
        parity = self._config.parity
        num_before = flight.num_packets - parity - 1
        sizes = [(num_before + 1, flight.last_packet_bytes)]
        sizes += [(parity, 0)] if last_data > 1 else [(1, flight.last_packet_bytes)] * parity
        pieces, place = [], 0
        for count, last_bytes in sizes:
            first = flight.first_packet + place
            burst, missing = self._hand_over(flight, range(first, first + count), last_bytes)
            pieces.append(_Piece(place, count, burst, missing))
            place += count
        return pieces

    def _left_ns(self, pieces: Sequence[_Piece], packet: int) -> int:
        """When the last bit left of a packet that was not dropped; packets count from the message's first."""
        piece = next(piece for piece in pieces if packet < piece.place + piece.num_packets)
        if packet == piece.place + piece.num_packets - 1:
            return piece.burst.end_ns
        return self._transmitter.left_ns(piece.burst, packet - piece.place)


class _Piece(NamedTuple):
    """Packets of a message from number `place` on: what the queue took, and which of the link's packets are missing."""

    place: int
    num_packets: int
    burst: Burst
    missing: list[int]
