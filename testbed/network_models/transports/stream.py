"""Messages cut into segments, and how each fared: what a connection's two ends tell each other about.

A segment never carries bytes of two messages, so each byte on the wire belongs to one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import Packet
from testbed.network_models.transfer import Fate, Transfer


@dataclass(slots=True, kw_only=True, eq=False)
class Message:
    """One message on its way, and what its `Transfer` will say."""

    number: int
    payload_bytes: int
    num_packets: int
    sent_ns: int
    missing: int  # segments that have not arrived
    connected_ns: int = -1  # the connection could carry it, -1: not yet
    first_ns: int = -1  # its first segment was handed to the queue
    wire_bytes: int = 0
    num_retransmissions: int = 0
    arrived_ns: int = -1  # the last of its own segments arrived
    window_ns: int = 0  # the rest is of that segment
    repeated_ns: int = 0
    queue_ns: int = 0
    serialise_ns: int = 0
    propagate_ns: int = 0
    jitter_ns: int = 0

    def arrive(self, segment: Segment, packet: Packet, now_ns: int) -> None:
        """One of its segments is here for the first time."""
        self.missing -= 1
        if not self.missing:
            self.arrived_ns = now_ns
            self.window_ns = segment.first_ns - self.connected_ns
            self.repeated_ns = now_ns - segment.first_ns - packet_ns(packet)
            self.queue_ns, self.serialise_ns = packet.queue_ns, packet.serialise_ns
            self.propagate_ns, self.jitter_ns = packet.propagate_ns, packet.jitter_ns

    def delivered(self, now_ns: int) -> Transfer:
        """All of it is there and nothing before it is missing."""
        return self._transfer(
            now_ns,
            fate=Fate.DELIVERED,
            connect_ns=self.connected_ns - self.sent_ns,
            window_ns=self.window_ns,
            queue_ns=self.queue_ns,
            serialise_ns=self.serialise_ns,
            propagate_ns=self.propagate_ns,
            jitter_ns=self.jitter_ns,
            retransmit_ns=self.repeated_ns + now_ns - self.arrived_ns,
        )

    def given_up(self, now_ns: int) -> Transfer:
        """It was not delivered: it waited for the connection, for the window, and then for what never came."""
        connected_ns = self.connected_ns if self.connected_ns >= 0 else now_ns
        first_ns = self.first_ns if self.first_ns >= 0 else now_ns
        return self._transfer(
            now_ns,
            fate=Fate.TIMEOUT,
            connect_ns=connected_ns - self.sent_ns,
            window_ns=first_ns - connected_ns,
            retransmit_ns=now_ns - first_ns,
        )

    def _transfer(
        self,
        now_ns: int,
        *,
        fate: Fate,
        connect_ns: int,
        window_ns: int,
        retransmit_ns: int,
        queue_ns: int = 0,
        serialise_ns: int = 0,
        propagate_ns: int = 0,
        jitter_ns: int = 0,
    ) -> Transfer:
        return Transfer(
            sent_ns=self.sent_ns,
            ended_ns=now_ns,
            payload_bytes=self.payload_bytes,
            wire_bytes=self.wire_bytes,
            num_packets=self.num_packets,
            num_retransmissions=self.num_retransmissions,
            fate=fate,
            connect_ns=connect_ns,
            window_ns=window_ns,
            queue_ns=queue_ns,
            serialise_ns=serialise_ns,
            propagate_ns=propagate_ns,
            jitter_ns=jitter_ns,
            retransmit_ns=retransmit_ns,
        )


@dataclass(slots=True, eq=False)
class Segment:
    """As much of a message as fits one packet."""

    message: Message
    payload_bytes: int
    is_last: bool  # of its message
    first_ns: int = -1  # it was first handed to the queue
    sent_ns: int = -1  # it was last handed to the queue
    num_sent: int = 0
    turn: int = 0  # of its last transmission among all of a TCP end
    in_flight: bool = False  # its last transmission is neither acknowledged nor given up
    acknowledged: bool = False
    has_arrived: bool = False

    def transmit(self, now_ns: int) -> None:
        """It is handed to the queue."""
        self.in_flight = True
        self.num_sent += 1
        self.sent_ns = now_ns
        if self.first_ns < 0:
            self.first_ns = now_ns
            if self.message.first_ns < 0:
                self.message.first_ns = now_ns


def segments(message: Message, framing: Framing) -> Iterator[Segment]:
    """A message's segments: all but the last are as large as the MTU allows."""
    full_bytes = framing.mtu_bytes - framing.header_bytes
    last = message.num_packets - 1
    for _ in range(last):
        yield Segment(message, full_bytes, is_last=False)
    yield Segment(message, message.payload_bytes - last * full_bytes, is_last=True)


def packet_ns(packet: Packet) -> int:
    """The time that a packet took from the first queue to the end of its path."""
    return packet.queue_ns + packet.serialise_ns + packet.propagate_ns + packet.jitter_ns
