"""What senders share that hand a message's packets to the queue back to back, computed a burst at a time.

Jitter is one draw a message: its packets stay together, and its rounds see the same extra delay. Messages are
independent of each other, as streams of QUIC are: one may overtake another by jitter, or while the other waits for a
repeat, and none is held back for order.

Order at one instant: (1) packets whose last bit leaves make room; (2) repeats that are due enter the queue, in the
order in which their time-outs were set; (3) messages sent now enter in the order of the calls; deliveries happen among
SimPy's other normal events, in the order in which their ends became known.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.clock import Delivery
from testbed.network_models.ports.packet import PortUsage
from testbed.network_models.queues.transmitter import Burst, Transmitter
from testbed.network_models.transfer import Fate, LinkSnapshot, Transfer
from testbed.network_models.transports.account import LinkAccount


class Flight(Delivery):
    """A message under way: what its sender waits for, with its account so far."""

    attempt = 0  # the current round
    not_before_ns = 0  # do its packets come out, where packets keep their order
    first_start_ns = first_end_ns = 0  # of the first round
    wire_bytes = num_retransmissions = 0
    corrupt: Sequence[int] = ()  # packets that come with a wrong bit which nobody finds
    is_corrupt = False  # put together from such packets

    def __init__(self, link: BurstLink, payload_bytes: int, first_packet: int, sent_ns: int) -> None:
        self.env = link.env
        self.callbacks = [link.count_end]
        self.message = link.num_messages
        self.payload_bytes = payload_bytes
        self.num_packets, self.last_packet_bytes = link.framing.cut(payload_bytes)
        self.first_packet = first_packet  # its number on the link
        self.sent_ns = sent_ns


class BurstLink(LinkAccount, ABC):
    """One direction of one access link, message by message."""

    __slots__ = (
        "_channel",
        "_is_plain",
        "_jitter",
        "_last_out_ns",
        "_loss",
        "_transmitter",
        "env",
        "framing",
    )

    _checks: ClassVar[bool] = True  # a packet with a wrong bit is found, and of no use

    def __init__(self, env: simpy.Environment, channel: Channel) -> None:
        super().__init__()
        self.env = env
        self.framing = channel.framing
        self._channel = channel
        self._transmitter = Transmitter(
            channel.rate, limit_bytes=channel.queue.limit, packet_bytes=channel.framing.mtu_bytes
        )
        self._loss = channel.loss
        self._jitter = channel.jitter
        self._is_plain = channel.corruption is channel.duplication is None and not channel.keeps_order
        self._last_out_ns = 0  # when what was sent last comes out, where packets keep their order

    def send(self, payload_bytes: int) -> simpy.Event:
        """Hand over one message now; the event succeeds with its `Transfer` when it is delivered or given up."""
        flight = Flight(self, payload_bytes, self._packets, int(self.env.now))
        self._count_message(payload_bytes)
        if self._last_out_ns:
            flight.not_before_ns = self._last_out_ns
        self._launch(flight)
        self._packets += flight.num_packets
        return flight

    @abstractmethod
    def _launch(self, flight: Flight) -> None:
        """Hand the packets of a new message to the queue."""

    def _hand_over(self, flight: Flight, packets: Sequence[int], last_bytes: int) -> tuple[Burst, list[int]]:
        """What the queue took of these packets, and which of them did not get through.

        All are full-size but the last, where `last_bytes` is not 0.
        """
        num_full = len(packets) - (last_bytes > 0)
        burst = self._transmitter.offer(int(self.env.now), num_full, last_bytes)
        dropped: Sequence[int] = ()
        if burst.num_full + burst.took_last < len(packets):
            taken_last = packets[num_full:] if burst.took_last else ()
            dropped = packets[burst.num_full : num_full if burst.took_last else len(packets)]
            packets = [*packets[: burst.num_full], *taken_last]
            self._dropped_packets += len(dropped)
        missing = self._loss.lost(packets, flight.attempt) if self._is_plain else self._missing(flight, packets, burst)
        self._lost_packets += len(missing)
        flight.wire_bytes += burst.wire_bytes
        self._wire_bytes += burst.wire_bytes
        return burst, sorted([*missing, *dropped]) if dropped else missing

    def _missing(self, flight: Flight, packets: Sequence[int], burst: Burst) -> list[int]:
        """Where packets may be corrupted, arrive twice or keep their order."""
        channel, attempt = self._channel, flight.attempt
        lost, corrupt = channel.missing(packets, attempt)
        self._corrupt_packets += len(corrupt)
        missing = lost
        if self._checks:
            missing = sorted([*lost, *corrupt])
            self._lost_packets -= len(corrupt)
        elif corrupt:
            flight.corrupt = [*flight.corrupt, *corrupt]
        if channel.duplication is not None:
            arrived = [packet for packet in packets if packet not in missing]
            self._duplicate_packets += len(channel.duplication.lost(arrived, attempt))
        if channel.keeps_order and burst.wire_bytes:
            self._last_out_ns = self._out_ns(flight, burst.end_ns)
        return missing

    def _out_ns(self, flight: Flight, left_ns: int) -> int:
        """When a packet of this round, whose last bit leaves at `left_ns`, comes out at the far end."""
        out_ns = left_ns + self._channel.propagation_ns + self._jitter.delay_ns(flight.message, flight.sent_ns)
        return out_ns if out_ns > flight.not_before_ns else flight.not_before_ns

    def _lose(self, flight: Flight, left_ns: int) -> None:
        """For good; the queue took what left until `left_ns`. Where it took nothing, the message ends at once."""
        if flight.wire_bytes:
            self._deliver(flight, left_ns, Fate.LOST)
        else:
            self._settle(flight, left_ns, Fate.LOST)

    def _deliver(self, flight: Flight, left_ns: int, fate: Fate = Fate.DELIVERED) -> None:
        """The message ends when the packet whose last bit leaves at `left_ns` arrives, or would have."""
        out_ns, propagate_ns = self._out_ns(flight, left_ns), self._channel.propagation_ns
        self._settle(flight, out_ns, fate, propagate_ns, out_ns - left_ns - propagate_ns)

    def _settle(self, flight: Flight, ended_ns: int, fate: Fate, propagate_ns: int = 0, jitter_ns: int = 0) -> None:
        """The exact breakdown: what no other part explains is time lost to retransmission."""
        sent_ns, start_ns, end_ns = flight.sent_ns, flight.first_start_ns, flight.first_end_ns
        if end_ns > ended_ns:  # given up, while its packets wait or leave
            start_ns, end_ns = min(start_ns, ended_ns), ended_ns
        transfer = Transfer(
            sent_ns,
            ended_ns,
            flight.payload_bytes,
            flight.wire_bytes,
            flight.num_packets,
            flight.num_retransmissions,
            fate,
            start_ns - sent_ns,
            end_ns - start_ns,
            propagate_ns,
            jitter_ns,
            ended_ns - propagate_ns - jitter_ns - end_ns,
            0,
            0,
            flight.is_corrupt and fate is Fate.DELIVERED,
        )
        flight.settle(transfer, ended_ns - int(self.env.now))

    def snapshot(self) -> LinkSnapshot:
        """The counters now; changes nothing."""
        queue, now_ns = self._transmitter, int(self.env.now)
        usage = PortUsage(
            queue.busy_ns(now_ns), queue.backlog_bytes(now_ns), queue.peak_backlog_bytes, self._dropped_packets
        )
        return self._counted(usage)
