"""What every link model offers to the rest: one message in, one `Transfer` out, and an account of both."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

import simpy


class Direction(StrEnum):
    """Which way messages go on an access link: one link object is one direction."""

    UP = "up"  # device to servers
    DOWN = "down"  # servers to device


class Fate(StrEnum):
    """What became of a message."""

    DELIVERED = "delivered"
    LOST = "lost"  # packets of it, and nobody will send it again
    TIMEOUT = "timeout"  # its transport lost patience


class Transfer(NamedTuple):
    """How one message fared. The parts are whole nanoseconds and add up to ``ended_ns - sent_ns`` exactly.

    A tuple: it is made for every message, in a quarter of the time that a frozen dataclass takes.
    A lost message ends when its last packet, had it arrived, would have. One that timed out has propagated nowhere: its
    `propagate_ns` and `jitter_ns` are 0.
    """

    sent_ns: int
    ended_ns: int  # the message is complete at the receiver, or its sender gave up
    payload_bytes: int
    wire_bytes: int  # clocked onto the link: headers and repeated packets included, dropped packets not
    num_packets: int  # the message was cut into
    num_retransmissions: int  # packets handed to the queue again, lost and dropped ones alike
    fate: Fate
    queue_ns: int  # the first round behind what was queued before it
    serialise_ns: int  # the first round's bits onto the link
    propagate_ns: int
    jitter_ns: int
    retransmit_ns: int  # from the first round's last bit to the last round's: time-outs, queueing, repeated bits
    connect_ns: int = 0  # handshake of the transport, radio waking up
    window_ns: int = 0  # held back by the transport's window
    is_corrupt: bool = False  # delivered with a wrong bit that no part of the link noticed

    @property
    def delivered(self) -> bool:
        return self.fate is Fate.DELIVERED


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSnapshot:
    """One direction's counters at an instant. Packets and wire bytes count once they are handed to the queue.

    ``messages - delivered - lost`` are under way; ``packets + retransmissions`` were handed to the queue, of which
    `dropped_packets` found it full, `lost_packets` were lost beyond it and `corrupt_packets` arrived with a wrong bit.
    """

    messages: int
    delivered: int
    lost: int  # messages given up
    payload_bytes: int  # of all messages
    delivered_payload_bytes: int
    lost_payload_bytes: int
    wire_bytes: int
    packets: int
    retransmissions: int
    dropped_packets: int
    lost_packets: int
    busy_ns: int  # spent clocking bits out so far
    backlog_bytes: int  # waiting and in service now
    peak_backlog_bytes: int
    ack_bytes: int = 0  # acknowledgements of these messages, headers included, on their way back
    duplicate_packets: int = 0  # that arrived once more
    corrupt_packets: int = 0


class Link(Protocol):
    """One direction of one access link, whatever its model."""

    def send(self, payload_bytes: int) -> simpy.Event:
        """Hand over one message now; the event succeeds with its `Transfer` when it is delivered or given up."""
        ...

    def snapshot(self) -> LinkSnapshot:
        """The counters now; changes nothing."""
        ...
