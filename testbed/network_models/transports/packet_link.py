"""The sending end of a link where every packet is an event: numbers, accounts, the breakdown of a delay.

Parts of a delivered message's delay, over one port or several: the wait of its first round's first packet at the
first port is `queue_ns`, from that packet's first bit to the round's last bit is `serialise_ns`, from there to the last
bit of the packet that completed the message is `retransmit_ns`. That packet's further way, port by port, adds to
`queue_ns` and `serialise_ns`; its delays on all ports are `propagate_ns` and `jitter_ns`. Where it belongs to the first
round, what that round clocked out behind it is left out. So the parts add up exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import simpy

from testbed.network_models.clock import Delivery
from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import Packet, Path
from testbed.network_models.transfer import Fate, LinkSnapshot, Transfer


@dataclass(slots=True, kw_only=True, eq=False)
class Flight:
    """A message under way. A *round* is what is handed to the first port together; `attempt` counts them from 0."""

    number: int
    payload_bytes: int
    first_packet: int  # packet numbers count over all messages of a link
    num_packets: int
    last_packet_bytes: int
    sent_ns: int
    done: Delivery
    has_arrived: bytearray  # by place in the message
    num_arrived: int = 0
    attempt: int = 0
    num_held: int = 0  # of this round's packets, those that neither left the first port nor were refused by it
    first_start_ns: int = -1  # the first round's first bit
    first_end_ns: int = 0  # and its last
    end_ns: int = 0  # this round's last bit; when it was handed over, where none left
    wire_bytes: int = 0
    num_retransmissions: int = 0
    missing: list[int] = field(default_factory=list)  # packets to send again
    is_armed: bool = False  # a time-out is set, or the end has come


class PacketLink:
    """One direction of a link; a transport says what it does about what is lost."""

    def __init__(self, env: simpy.Environment, framing: Framing, path: Path) -> None:
        self._env = env
        self._framing = framing
        self._path = path
        self._messages = self._delivered = self._given_up = 0
        self._payload_bytes = self._delivered_payload_bytes = self._lost_payload_bytes = 0
        self._packets = self._retransmissions = self._dropped_packets = self._lost_packets = 0
        self._wire_bytes = self._duplicate_packets = self._corrupt_packets = 0

    def send(self, payload_bytes: int) -> simpy.Event:
        """Hand over one message now; the event succeeds with its `Transfer` when it is delivered or given up."""
        assert payload_bytes >= 0, f"a message can't have {payload_bytes} bytes"
        num_packets = self._framing.num_packets(payload_bytes)
        flight = Flight(
            number=self._messages,
            payload_bytes=payload_bytes,
            first_packet=self._packets,
            num_packets=num_packets,
            last_packet_bytes=self._framing.last_packet_bytes(payload_bytes),
            sent_ns=int(self._env.now),
            done=Delivery(self._env),
            has_arrived=bytearray(num_packets),
        )
        flight.done.callbacks.append(self._count_end)
        self._messages += 1
        self._payload_bytes += payload_bytes
        self._packets += num_packets
        self._begin(flight)
        return flight.done

    def _begin(self, flight: Flight) -> None:
        """A new message: hand what is due of it to the path."""
        raise NotImplementedError

    def _round_left(self, flight: Flight) -> None:
        """All of a round has left the first port or was refused by it; some may be known to be missing."""
        raise NotImplementedError

    def _missed(self, flight: Flight, packet: Packet) -> None:
        """A packet was dropped or lost."""
        raise NotImplementedError

    def _transmit(self, flight: Flight, packets: list[int] | range) -> None:
        """One round: hand over these packets, ascending, back to back."""
        flight.num_held = len(packets)
        flight.end_ns = int(self._env.now)
        path, full_bytes = self._path, self._framing.mtu_bytes
        last = flight.first_packet + flight.num_packets - 1
        for number in packets:
            size_bytes = flight.last_packet_bytes if number == last else full_bytes
            key = (path.entity, number, flight.attempt, flight.number, flight.sent_ns)
            path.send(Packet(size_bytes, self, path.ports, *key, flight))

    def left(self, packet: Packet, left_ns: int) -> None:
        flight = packet.content
        assert isinstance(flight, Flight)
        flight.wire_bytes += packet.size_bytes
        self._wire_bytes += packet.size_bytes
        if flight.first_start_ns < 0:
            flight.first_start_ns = packet.start_ns
        flight.end_ns = max(flight.end_ns, left_ns)
        self._is_off(flight)

    def dropped(self, packet: Packet) -> None:
        flight = packet.content
        assert isinstance(flight, Flight)
        self._dropped_packets += 1
        self._missed(flight, packet)
        self._is_off(flight)

    def _is_off(self, flight: Flight) -> None:
        flight.num_held -= 1
        if flight.num_held == 0:
            if flight.attempt == 0:
                flight.first_end_ns = flight.end_ns
                if flight.first_start_ns < 0:
                    flight.first_start_ns = flight.end_ns
            self._round_left(flight)

    def lost(self, packet: Packet, gone_ns: int) -> None:
        flight = packet.content
        assert isinstance(flight, Flight)
        if packet.is_corrupt:
            self._corrupt_packets += 1
        else:
            self._lost_packets += 1
        self._missed(flight, packet)

    def arrived(self, packet: Packet) -> None:
        flight = packet.content
        assert isinstance(flight, Flight)
        place = packet.number - flight.first_packet
        if flight.has_arrived[place]:
            self._duplicate_packets += 1
            return
        flight.has_arrived[place] = 1
        flight.num_arrived += 1
        if flight.num_arrived == flight.num_packets:
            flight.done.settle(self._delivery(flight, packet), 0)

    def _delivery(self, flight: Flight, last: Packet) -> Transfer:
        """Complete now, by the packet `last`."""
        ended_ns = int(self._env.now)
        serialise_on_ns = last.serialise_ns - (last.left_ns - last.start_ns)
        queue_on_ns = ended_ns - last.left_ns - last.propagate_ns - last.jitter_ns - serialise_on_ns
        first_end_ns = min(flight.first_end_ns, last.left_ns)
        return Transfer(
            sent_ns=flight.sent_ns,
            ended_ns=ended_ns,
            payload_bytes=flight.payload_bytes,
            wire_bytes=flight.wire_bytes,
            num_packets=flight.num_packets,
            num_retransmissions=flight.num_retransmissions,
            fate=Fate.DELIVERED,
            queue_ns=flight.first_start_ns - flight.sent_ns + queue_on_ns,
            serialise_ns=first_end_ns - flight.first_start_ns + serialise_on_ns,
            propagate_ns=last.propagate_ns,
            jitter_ns=last.jitter_ns,
            retransmit_ns=last.left_ns - first_end_ns,
        )

    def _failure(self, flight: Flight, ended_ns: int, fate: Fate) -> Transfer:
        """Given up at `ended_ns`: what came after the first round was waiting."""
        return Transfer(
            sent_ns=flight.sent_ns,
            ended_ns=ended_ns,
            payload_bytes=flight.payload_bytes,
            wire_bytes=flight.wire_bytes,
            num_packets=flight.num_packets,
            num_retransmissions=flight.num_retransmissions,
            fate=fate,
            queue_ns=flight.first_start_ns - flight.sent_ns,
            serialise_ns=flight.first_end_ns - flight.first_start_ns,
            propagate_ns=0,
            jitter_ns=0,
            retransmit_ns=ended_ns - flight.first_end_ns,
        )

    def _count_end(self, done: simpy.Event) -> None:
        transfer = done.value
        assert isinstance(transfer, Transfer)
        if transfer.delivered:
            self._delivered += 1
            self._delivered_payload_bytes += transfer.payload_bytes
        else:
            self._given_up += 1
            self._lost_payload_bytes += transfer.payload_bytes

    def snapshot(self) -> LinkSnapshot:
        """The counters now; changes nothing. What is busy and held is the first port's."""
        usage = self._path.ports[0].usage(int(self._env.now))
        return LinkSnapshot(
            messages=self._messages,
            delivered=self._delivered,
            lost=self._given_up,
            payload_bytes=self._payload_bytes,
            delivered_payload_bytes=self._delivered_payload_bytes,
            lost_payload_bytes=self._lost_payload_bytes,
            wire_bytes=self._wire_bytes,
            packets=self._packets,
            retransmissions=self._retransmissions,
            dropped_packets=self._dropped_packets,
            lost_packets=self._lost_packets,
            busy_ns=usage.busy_ns,
            backlog_bytes=usage.backlog_bytes,
            peak_backlog_bytes=usage.peak_backlog_bytes,
            duplicate_packets=self._duplicate_packets,
            corrupt_packets=self._corrupt_packets,
        )
