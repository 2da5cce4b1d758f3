"""The sending end of a link where every packet is an event: numbers, accounts, the breakdown of a delay.

Parts of a delivered message's delay, over one port or several: the wait of its first round's first packet at the
first port is `queue_ns`, from that packet's first bit to the round's last bit is `serialise_ns`, from there to the last
bit of the packet that completed the message is `retransmit_ns`. That packet's further way, port by port, adds to
`queue_ns` and `serialise_ns`; its delays on all ports are `propagate_ns` and `jitter_ns`. Where it belongs to the first
round, what that round clocked out behind it is left out. So the parts add up exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import simpy
from simpy.events import PENDING

from testbed.network_models.clock import Delivery
from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import NOWHERE, Beyond, Packet, Path
from testbed.network_models.ports.round import Arrival, Departure, Round
from testbed.network_models.rates.segments import FOREVER
from testbed.network_models.transfer import Fate, LinkSnapshot, Transfer
from testbed.network_models.transports.account import LinkAccount


@dataclass(slots=True, kw_only=True, eq=False)
class Flight(Delivery):
    """A message under way: what its sender waits for, with its account so far.

    A *round* is what is handed to the first port together; `attempt` counts them from 0.
    """

    env: simpy.Environment
    callbacks: list[Callable[[Any], None]]
    _ok: bool = field(default=True, init=False)  # with these fields of an event it needs no dictionary
    _value: object = field(default=PENDING, init=False)
    number: int
    payload_bytes: int
    first_packet: int  # packet numbers count over all messages of a link
    num_packets: int
    short: range  # numbers of the packets that have `short_bytes`; the others are as large as the MTU
    short_bytes: int
    sent_ns: int
    deadline_ns: int
    has_arrived: bytearray | None = None  # by place in the message, where another transmission may double one
    num_arrived: int = 0
    attempt: int = 0
    num_held: int = 0  # of this round's packets, those that neither left the first port nor were refused by it
    first_start_ns: int = -1  # the first round's first bit
    first_end_ns: int = -1  # and its last
    end_ns: int = 0  # this round's last bit; when it was handed over, where none left
    wire_bytes: int = 0
    num_retransmissions: int = 0
    missing: list[int] = field(default_factory=list)  # packets that were dropped or lost, and not sent again yet
    is_armed: bool = False  # a time-out is set for them
    is_corrupt: bool = False  # put together from a packet with a wrong bit, which nobody found

    @property
    def packets(self) -> range:
        """Their numbers."""
        return range(self.first_packet, self.first_packet + self.num_packets)

    @property
    def is_over(self) -> bool:
        """Its end is known."""
        return self._value is not PENDING


F = TypeVar("F", bound=Flight)


class PacketLink(LinkAccount, ABC):
    """One direction of a link; a transport says what it does about what is lost."""

    __slots__ = (
        "_env",
        "_framing",
        "_path",
        "_patience_ns",
    )

    _checks: ClassVar[bool] = True  # a packet with a wrong bit is found, and of no use

    def __init__(self, env: simpy.Environment, framing: Framing, path: Path, *, patience_ns: int | None = None) -> None:
        super().__init__()
        self._env = env
        self._framing = framing
        self._path = path
        self._patience_ns = patience_ns  # of a message, from its sending

    def send(self, payload_bytes: int) -> simpy.Event:
        """Hand over one message now; the event succeeds with its `Transfer` when it is delivered or given up."""
        flight = self._open(payload_bytes)
        self._count_message(payload_bytes)
        if self._patience_ns is not None:  # an event of normal priority: what arrives at that instant is in time
            late = self._env.timeout(self._patience_ns)
            late.callbacks.append(lambda _: self._lose_patience(flight))
        self._begin(flight)
        return flight

    def _open(self, payload_bytes: int) -> Flight:
        """A new message's account."""
        return self._account(Flight, payload_bytes, *self._framing.cut(payload_bytes))

    def _account(
        self,
        kind: type[F],
        payload_bytes: int,
        num_packets: int,
        short_bytes: int,
        *,
        num_behind: int = 0,
        num_short: int = 1,
    ) -> F:
        """So many packets; `num_short` from that one on that has `num_behind` others behind it have `short_bytes`."""
        numbers, now_ns = self._path.numbers, int(self._env.now)
        first = numbers.packets(num_packets)
        first_short = first + num_packets - num_behind - 1
        return kind(
            env=self._env,
            callbacks=[self.count_end],
            number=numbers.message(),
            payload_bytes=payload_bytes,
            first_packet=first,
            num_packets=num_packets,
            short=range(first_short, first_short + num_short),
            short_bytes=short_bytes,
            sent_ns=now_ns,
            deadline_ns=FOREVER if self._patience_ns is None else now_ns + self._patience_ns,
        )

    def _lose_patience(self, flight: Flight) -> None:
        """The message is as old as its transport lets it become."""
        if not flight.is_over:
            self._settle_unsent(flight, flight.deadline_ns, Fate.TIMEOUT)

    @abstractmethod
    def _begin(self, flight: Flight) -> None:
        """A new message: hand what is due of it to the path."""

    @abstractmethod
    def _round_left(self, flight: Flight) -> None:
        """All of a round has left the first port or was refused by it."""

    @abstractmethod
    def _missed(self, flight: Flight, packet: Packet, gone_ns: int | None) -> None:
        """A packet was lost, at `gone_ns`, or dropped by the first port (None)."""

    @abstractmethod
    def _came(self, flight: Flight, packet: Arrival) -> None:
        """A packet arrived, now and for the first time."""

    def _transmit(self, flight: Flight, packets: Sequence[int]) -> None:
        """One round: hand over these packets, ascending, back to back."""
        flight.num_held = len(packets)
        flight.end_ns = int(self._env.now)
        if flight.attempt:
            flight.num_retransmissions += len(packets)
            self._retransmissions += len(packets)
        else:
            self._packets += len(packets)
        self._path.send_round(
            Round(
                self._env,
                self,
                self._path,
                packets,
                attempt=flight.attempt,
                message=flight.number,
                sent_ns=flight.sent_ns,
                content=flight,
                is_checked=self._checks,
                full_bytes=self._framing.mtu_bytes,
                short=flight.short,
                short_bytes=flight.short_bytes,
            )
        )

    def left(self, packet: Packet, left_ns: int) -> None:
        self.departed(packet.content, Departure(1, packet.size_bytes, packet.start_ns, left_ns))

    def departed(self, content: object, packets: Departure) -> None:
        flight = content
        assert isinstance(flight, Flight)
        flight.wire_bytes += packets.wire_bytes
        self._wire_bytes += packets.wire_bytes
        if flight.first_start_ns < 0:
            flight.first_start_ns = packets.start_ns
        flight.end_ns = max(flight.end_ns, packets.end_ns)
        flight.num_held -= packets.num_packets
        if not flight.num_held:
            self._is_off(flight)

    def dropped(self, packet: Packet) -> None:
        flight = packet.content
        assert isinstance(flight, Flight)
        self._dropped_packets += 1
        flight.num_held -= 1
        if not flight.num_held:
            self._is_off(flight)
        self._missed(flight, packet, None)

    def _is_off(self, flight: Flight) -> None:
        if not flight.attempt:
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
        self._missed(flight, packet, gone_ns)

    def came(self, packets: Round) -> None:
        flight = packets.content
        assert isinstance(flight, Flight)
        flight.num_arrived += 1
        self._came(flight, packets)

    def arrived(self, packet: Packet) -> None:
        flight = packet.content
        assert isinstance(flight, Flight)
        place, has_arrived = packet.number - flight.first_packet, flight.has_arrived
        if has_arrived is None:
            has_arrived = flight.has_arrived = bytearray(flight.num_packets)
        if has_arrived[place]:
            self._duplicate_packets += 1
            return
        self._corrupt_packets += packet.is_corrupt
        has_arrived[place] = 1
        flight.num_arrived += 1
        self._came(flight, packet)

    def _settle_by(self, flight: Flight, last: Packet, ended_ns: int, fate: Fate) -> None:
        """The message ends when the packet `last` arrives, or would have."""
        first_end_ns = last.left_ns if flight.first_end_ns < 0 else min(flight.first_end_ns, last.left_ns)
        waited_ns, serialise_ns = flight.first_start_ns - flight.sent_ns, first_end_ns - flight.first_start_ns
        self._settle(flight, ended_ns, fate, waited_ns, serialise_ns, beyond=last.beyond(ended_ns))

    def _settle_unsent(self, flight: Flight, ended_ns: int, fate: Fate) -> None:
        """The message ends without any packet's arrival: what came after its first round was waiting."""
        start_ns = ended_ns if flight.first_start_ns < 0 else min(flight.first_start_ns, ended_ns)
        end_ns = ended_ns if flight.first_end_ns < 0 else min(flight.first_end_ns, ended_ns)
        self._settle(flight, ended_ns, fate, start_ns - flight.sent_ns, end_ns - start_ns)

    def _settle(
        self,
        flight: Flight,
        ended_ns: int,
        fate: Fate,
        queue_ns: int,
        serialise_ns: int,
        *,
        beyond: Beyond = NOWHERE,
        window_ns: int = 0,
    ) -> None:
        """The breakdown, from the first port and from `beyond` it; what no other part explains is `retransmit_ns`."""
        explained_ns = queue_ns + serialise_ns + sum(beyond) + window_ns
        transfer = Transfer(
            sent_ns=flight.sent_ns,
            ended_ns=ended_ns,
            payload_bytes=flight.payload_bytes,
            wire_bytes=flight.wire_bytes,
            num_packets=flight.num_packets,
            num_retransmissions=flight.num_retransmissions,
            fate=fate,
            queue_ns=queue_ns + beyond.queue_ns,
            serialise_ns=serialise_ns + beyond.serialise_ns,
            propagate_ns=beyond.propagate_ns,
            jitter_ns=beyond.jitter_ns,
            retransmit_ns=ended_ns - flight.sent_ns - explained_ns,
            window_ns=window_ns,
            is_corrupt=flight.is_corrupt and fate is Fate.DELIVERED,
        )
        flight.settle(transfer, ended_ns - int(self._env.now))

    def snapshot(self) -> LinkSnapshot:
        """The counters now; changes nothing. What is busy and held is the first port's."""
        return self._counted(self._path.ports[0].usage(int(self._env.now)))
