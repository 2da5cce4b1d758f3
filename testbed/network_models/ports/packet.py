"""Packets on their way: through one port after the other, to the end that waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class End(Protocol):
    """Who sent a packet, and is told what becomes of it."""

    def left(self, packet: Packet, left_ns: int) -> None:
        """Its last bit leaves the first port at `left_ns`, now or later; told once, when that becomes known."""
        ...

    def dropped(self, packet: Packet) -> None:
        """The first port's queue did not take it, or gave it up. Further on packets vanish without a word."""
        ...

    def arrived(self, packet: Packet) -> None:
        """It is at the end of its path, now."""
        ...


class Port(Protocol):
    """One direction of one hop: a queue, a rate, loss, a delay."""

    def offer(self, packet: Packet) -> None:
        """Take, now, a packet that came to this port; `packet.onward()` when it comes out at the far end."""
        ...


@dataclass(slots=True, eq=False)
class Packet:
    """One transmission of one packet. Its four times add up over the ports behind it."""

    size_bytes: int  # headers included
    end: End
    ports: Sequence[Port]
    entity: int  # whose packet it is: keys its draws wherever several share a port
    number: int  # place among its sender's packets on this path: with `attempt` the key of its loss
    attempt: int
    message: int  # the key of its jitter: packets of one message stay together
    content: object = None  # what the end needs to know it again
    hop: int = 0  # the port it is at
    is_corrupt: bool = False
    queue_ns: int = 0
    serialise_ns: int = 0
    propagate_ns: int = 0
    jitter_ns: int = 0

    def onward(self) -> None:
        """To the next port, or to its end."""
        self.hop += 1
        if self.hop < len(self.ports):
            self.ports[self.hop].offer(self)
        else:
            self.end.arrived(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """The ports between the two ends of a link, in one direction; the first is the sender's own."""

    ports: Sequence[Port]

    def send(self, packet: Packet) -> None:
        """Hand a packet to the first port; its `ports` are these."""
        self.ports[0].offer(packet)
