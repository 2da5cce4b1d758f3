"""Packets on their way: through one port after the other, to the end that waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from testbed.network_models.ports.round import Round


class End(Protocol):
    """Who sent a packet, and is told what becomes of it.

    Every packet is either `dropped`, or has `left` and is then `lost` or has `arrived`, perhaps twice. A port may tell
    `left` and `lost` as soon as they are certain, ahead of their time: a real sender could not act on them before.
    """

    def left(self, packet: Packet, left_ns: int) -> None:
        """Its last bit leaves the first port at `left_ns`, now or later; told once, when that becomes known."""
        ...

    def dropped(self, packet: Packet) -> None:
        """The first port's queue did not take it, or gave it up."""
        ...

    def lost(self, packet: Packet, gone_ns: int) -> None:
        """It never comes out of one of its ports: at `gone_ns` it would have, or a queue further on had no room.

        So it is with a packet that `is_checked` and `is_corrupt`.
        """
        ...

    def arrived(self, packet: Packet) -> None:
        """It is at the end of its path, now."""
        ...


class PortUsage(NamedTuple):
    """What a port has done and holds, at an instant."""

    busy_ns: int  # spent clocking bits out so far
    backlog_bytes: int  # waiting and in service
    peak_backlog_bytes: int
    dropped_packets: int  # found the queue full, or waited too long


class Numbers:
    """Gives packets and messages their numbers. Connections of one sender that share a port count together."""

    __slots__ = ("_messages", "_packets")

    def __init__(self) -> None:
        self._messages = self._packets = 0

    def message(self) -> int:
        """The next message's."""
        self._messages += 1
        return self._messages - 1

    def packets(self, count: int) -> int:
        """The first of the next `count` packets'."""
        self._packets += count
        return self._packets - count


class Port(Protocol):
    """One direction of one hop: a queue, a rate, loss, a delay."""

    @property
    def propagation_ns(self) -> int:
        """What its delay is at least."""
        ...

    def offer(self, packet: Packet) -> None:
        """Take, now, a packet that came to this port; `packet.onward()` when it comes out at the far end."""
        ...

    def offer_round(self, packets: Round) -> None:
        """Take, now, packets that were handed over together: as if each were offered in turn."""
        ...

    def usage(self, now_ns: int) -> PortUsage:
        """Its counters now."""
        ...


class OneByOne:
    """A port that takes rounds packet by packet."""

    __slots__ = ()

    def offer_round(self: Port, packets: Round) -> None:
        for packet in packets.packets():
            self.offer(packet)


class Beyond(NamedTuple):
    """A packet's time after the first port: there it queued and was clocked out, everywhere it was delayed."""

    queue_ns: int
    serialise_ns: int
    propagate_ns: int
    jitter_ns: int


NOWHERE = Beyond(0, 0, 0, 0)


@dataclass(slots=True, eq=False)
class Packet:
    """One transmission of one packet. Its last four times add up over the ports behind it.

    Tens of thousands are under way at once: what can be told from the instants at the first port is not kept twice.
    """

    size_bytes: int  # headers included
    end: End
    ports: Sequence[Port]
    entity: int  # whose packet it is: keys its draws wherever several share a port
    number: int  # place among its sender's packets on this path: with `attempt` the key of its loss
    attempt: int
    message: int  # the key of its jitter: packets of one message stay together
    sent_ns: int  # when its message was handed over: the time of its jitter, where that is correlated in time
    content: object = None  # what the end needs to know it again
    hop: int = 0  # the port it is at
    is_checked: bool = True  # whether its end would find a wrong bit: the packet is then of no use, and counts as lost
    is_corrupt: bool = False  # a bit is wrong
    came_ns: int = 0  # to the first port
    start_ns: int = 0  # of its first bit, at the first port
    left_ns: int = 0  # its last bit, at the first port
    out_ns: int = 0  # of the port it is at
    behind: Packet | None = None  # that comes out next there, of the same message
    later_queue_ns: int = 0  # at all ports but the first
    later_serialise_ns: int = 0
    propagate_ns: int = 0
    jitter_ns: int = 0

    @property
    def queue_ns(self) -> int:
        return self.start_ns - self.came_ns + self.later_queue_ns

    @property
    def serialise_ns(self) -> int:
        return self.left_ns - self.start_ns + self.later_serialise_ns

    def packet(self) -> Packet:
        """It is itself what arrives."""
        return self

    def leaves(self, came_ns: int, start_ns: int, left_ns: int) -> None:
        """It came to the port it is at, and its first and last bit leave that port at these times, now or later."""
        if self.hop:
            self.later_queue_ns += start_ns - came_ns
            self.later_serialise_ns += left_ns - start_ns
        else:
            self.came_ns, self.start_ns, self.left_ns = came_ns, start_ns, left_ns
            self.end.left(self, left_ns)

    def onward(self) -> None:
        """To the next port, or to its end."""
        self.hop += 1
        if self.hop < len(self.ports):
            self.ports[self.hop].offer(self)
        else:
            self.end.arrived(self)

    def beyond(self, ended_ns: int) -> Beyond:
        """Its way from the first port's last bit to `ended_ns`, when it arrives or is gone."""
        serialise_ns = self.later_serialise_ns
        queue_ns = ended_ns - self.left_ns - self.propagate_ns - self.jitter_ns - serialise_ns
        return Beyond(queue_ns, serialise_ns, self.propagate_ns, self.jitter_ns)

    def refused(self, now_ns: int) -> None:
        """A port's queue has no room for it."""
        if self.hop == 0:
            self.end.dropped(self)
        else:
            self.end.lost(self, now_ns)


class Path(Numbers):
    """The ports between the two ends of a link, in one direction; the first is the sender's own.

    `entity` is whose packets these are; paths that share a port have the same only where they share `numbers` too. A
    path without others' numbers gives its own.
    """

    __slots__ = ("_shared", "entity", "ports")

    def __init__(self, *, ports: Sequence[Port], entity: int = 0, numbers: Numbers | None = None) -> None:
        super().__init__()
        self.ports = ports
        self.entity = entity
        self._shared = numbers

    @property
    def numbers(self) -> Numbers:
        return self if self._shared is None else self._shared

    @property
    def propagation_ns(self) -> int:
        """From the last bit out of each port to the next, or to the end, together."""
        return sum(port.propagation_ns for port in self.ports)

    def send(self, packet: Packet) -> None:
        """Hand a packet to the first port; its `ports` are these."""
        self.ports[0].offer(packet)

    def send_round(self, packets: Round) -> None:
        """The same for packets that are handed over together."""
        if len(packets.numbers) > 1:
            self.ports[0].offer_round(packets)
        else:
            self.send(*packets.packets())
