"""What one end of a connection is to the clock and the wire: a state machine that is told the time.

An engine neither waits nor sends. Its end hands it messages and packets with the time, puts on the wire what
`next_packet` gives until it gives nothing, and calls `expire` when `deadline_ns` has come.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from testbed.network_models.transports.stream import Message, Segment


class Outgoing(NamedTuple):
    """A packet to put on the wire now."""

    size_bytes: int  # headers included
    content: object  # for the other end's engine
    segment: Segment | None = None  # what it carries
    opens_for: Message | None = None  # of a packet that only opens the connection: the message that waits for it


class Engine(Protocol):
    """One end of one connection."""

    @property
    def deadline_ns(self) -> int:
        """When `expire` is to be called, -1: not before something else happens."""
        ...

    def write(self, now_ns: int, message: Message) -> None:
        """A message is handed over."""
        ...

    def receive(self, now_ns: int, content: object) -> Segment | None:
        """A packet is here; the segment it brings, if that is new."""
        ...

    def completed(self, segment: Segment) -> list[Message]:
        """What the new segment completes for whoever reads here, in order."""
        ...

    def next_packet(self, now_ns: int) -> Outgoing | None:
        """What to send now; called until None."""
        ...

    def expire(self, now_ns: int) -> bool:
        """Time-outs that have run out by now; whether the other end counts as gone."""
        ...

    def abandon(self, message: Message) -> bool:
        """The sender of this message lost patience; whether the connection can go on without it."""
        ...
