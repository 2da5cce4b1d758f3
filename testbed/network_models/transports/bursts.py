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
from dataclasses import dataclass

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.clock import Delivery
from testbed.network_models.queues.transmitter import Burst, Transmitter
from testbed.network_models.transfer import Fate, LinkSnapshot, Transfer


@dataclass(slots=True, kw_only=True, eq=False)
class Flight:
    """A message under way. `attempt` is its current round, from 0."""

    message: int
    payload_bytes: int
    first_packet: int  # the link's packet number of its first packet
    num_packets: int
    last_packet_bytes: int  # its last packet may be smaller than the others
    sent_ns: int
    done: Delivery
    attempt: int = 0
    first_start_ns: int = 0
    first_end_ns: int = 0
    wire_bytes: int = 0
    num_retransmissions: int = 0


class BurstLink(ABC):
    """One direction of one access link, message by message."""

    __slots__ = (
        "_ack_bytes",
        "_delivered",
        "_delivered_payload_bytes",
        "_dropped_packets",
        "_env",
        "_framing",
        "_jitter",
        "_loss",
        "_lost",
        "_lost_packets",
        "_lost_payload_bytes",
        "_messages",
        "_packets",
        "_payload_bytes",
        "_propagation_ns",
        "_retransmissions",
        "_transmitter",
        "_wire_bytes",
    )

    def __init__(self, env: simpy.Environment, channel: Channel) -> None:
        self._env = env
        self._propagation_ns = channel.propagation_ns
        self._framing = channel.framing
        self._transmitter = Transmitter(
            channel.rate, limit_bytes=channel.queue_limit_bytes, packet_bytes=channel.framing.mtu_bytes
        )
        self._loss = channel.loss
        self._jitter = channel.jitter
        self._messages = self._delivered = self._lost = 0
        self._payload_bytes = self._delivered_payload_bytes = self._lost_payload_bytes = 0
        self._packets = self._retransmissions = self._dropped_packets = self._lost_packets = 0
        self._wire_bytes = self._ack_bytes = 0

    def send(self, payload_bytes: int) -> simpy.Event:
        """Hand over one message now; the event succeeds with its `Transfer` when it is delivered or given up."""
        assert payload_bytes >= 0, f"a message can't have {payload_bytes} bytes"
        flight = Flight(
            message=self._messages,
            payload_bytes=payload_bytes,
            first_packet=self._packets,
            num_packets=self._framing.num_packets(payload_bytes),
            last_packet_bytes=self._framing.last_packet_bytes(payload_bytes),
            sent_ns=int(self._env.now),
            done=Delivery(self._env),
        )
        flight.done.callbacks.append(self._count_end)
        self._messages += 1
        self._payload_bytes += payload_bytes
        self._launch(flight)
        self._packets += flight.num_packets
        return flight.done

    @abstractmethod
    def _launch(self, flight: Flight) -> None:
        """Hand the packets of a new message to the queue."""

    def _hand_over(self, flight: Flight, packets: Sequence[int], last_bytes: int) -> tuple[Burst, list[int]]:
        """What the queue took of these packets, and which of them did not get through.

        All are full-size but the last, where `last_bytes` is not 0.
        """
        num_full = len(packets) - (last_bytes > 0)
        burst = self._transmitter.offer(int(self._env.now), num_full, last_bytes)
        dropped: Sequence[int] = ()
        if burst.num_full + burst.took_last < len(packets):
            taken_last = packets[num_full:] if burst.took_last else ()
            dropped = packets[burst.num_full : num_full if burst.took_last else len(packets)]
            packets = [*packets[: burst.num_full], *taken_last]
        lost = self._loss.lost(packets, flight.attempt)
        flight.wire_bytes += burst.wire_bytes
        self._wire_bytes += burst.wire_bytes
        self._dropped_packets += len(dropped)
        self._lost_packets += len(lost)
        return burst, sorted([*lost, *dropped])

    def _lose(self, flight: Flight, left_ns: int) -> None:
        """For good; the queue took what left until `left_ns`. Where it took nothing, the message ends at once."""
        if flight.wire_bytes:
            self._deliver(flight, left_ns, Fate.LOST)
        else:
            self._settle(flight, left_ns, Fate.LOST)

    def _deliver(self, flight: Flight, left_ns: int, fate: Fate = Fate.DELIVERED) -> None:
        """The message ends when the packet whose last bit leaves at `left_ns` arrives, or would have."""
        propagate_ns, jitter_ns = self._propagation_ns, self._jitter.delay_ns(flight.message, flight.sent_ns)
        self._settle(flight, left_ns + propagate_ns + jitter_ns, fate, propagate_ns, jitter_ns)

    def _settle(self, flight: Flight, ended_ns: int, fate: Fate, propagate_ns: int = 0, jitter_ns: int = 0) -> None:
        """The exact breakdown: what no other part explains is time lost to retransmission."""
        start_ns, end_ns = min(flight.first_start_ns, ended_ns), min(flight.first_end_ns, ended_ns)
        transfer = Transfer(
            sent_ns=flight.sent_ns,
            ended_ns=ended_ns,
            payload_bytes=flight.payload_bytes,
            wire_bytes=flight.wire_bytes,
            num_packets=flight.num_packets,
            num_retransmissions=flight.num_retransmissions,
            fate=fate,
            queue_ns=start_ns - flight.sent_ns,
            serialise_ns=end_ns - start_ns,
            propagate_ns=propagate_ns,
            jitter_ns=jitter_ns,
            retransmit_ns=ended_ns - propagate_ns - jitter_ns - end_ns,
        )
        flight.done.settle(transfer, ended_ns - int(self._env.now))

    def _count_end(self, done: simpy.Event) -> None:
        transfer = done.value
        assert isinstance(transfer, Transfer)
        if transfer.delivered:
            self._delivered += 1
            self._delivered_payload_bytes += transfer.payload_bytes
        else:
            self._lost += 1
            self._lost_payload_bytes += transfer.payload_bytes

    def snapshot(self) -> LinkSnapshot:
        """The counters now; changes nothing."""
        now_ns = int(self._env.now)
        return LinkSnapshot(
            messages=self._messages,
            delivered=self._delivered,
            lost=self._lost,
            payload_bytes=self._payload_bytes,
            delivered_payload_bytes=self._delivered_payload_bytes,
            lost_payload_bytes=self._lost_payload_bytes,
            wire_bytes=self._wire_bytes,
            packets=self._packets,
            retransmissions=self._retransmissions,
            dropped_packets=self._dropped_packets,
            lost_packets=self._lost_packets,
            busy_ns=self._transmitter.busy_ns(now_ns),
            backlog_bytes=self._transmitter.backlog_bytes(now_ns),
            peak_backlog_bytes=self._transmitter.peak_backlog_bytes,
            ack_bytes=self._ack_bytes,
        )
