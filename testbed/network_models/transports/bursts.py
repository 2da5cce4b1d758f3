"""Selective repeat, message by message: what happens to a message's packets is computed a round at a time.

A message is cut into packets, which are handed to the queue back to back: a *round*. Packets that were lost, or dropped
by a full queue, are handed over again `retransmit_timeout` after the round's last bit left (after the attempt itself,
where the queue took nothing). The message is complete when its last missing packet arrives: last bit out, plus the
propagation delay, plus jitter. After `max_retransmissions` further rounds the sender waits one more time-out and gives
up. Acknowledgements cost nothing and are never lost.

Jitter is one draw a message: its packets stay together, and its rounds see the same extra delay. Messages are
independent of each other, as streams of QUIC are: one may overtake another by jitter, or while the other waits for a
repeat, and none is held back for order.

Order at one instant: (1) packets whose last bit leaves make room; (2) repeats that are due enter the queue, in the
order in which their time-outs were set; (3) messages sent now enter in the order of the calls; deliveries happen among
SimPy's other normal events, in the order in which their ends became known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.clock import Delivery, Timer
from testbed.network_models.queues.transmitter import Burst, Transmitter
from testbed.network_models.transfer import Fate, LinkSnapshot, Transfer


@dataclass(slots=True, kw_only=True, eq=False)
class _Flight:
    """A message under way. `attempt` is its current round, from 0."""

    message: int
    payload_bytes: int
    last_packet: int  # the link's packet number of its last packet, of `last_packet_bytes`
    last_packet_bytes: int
    num_packets: int
    sent_ns: int
    done: Delivery
    attempt: int = 0
    first_start_ns: int = 0
    first_end_ns: int = 0
    wire_bytes: int = 0
    num_retransmissions: int = 0


class BurstLink:
    """One direction of one access link, message by message."""

    __slots__ = (
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
        "_max_retransmissions",
        "_messages",
        "_packets",
        "_payload_bytes",
        "_propagation_ns",
        "_retransmissions",
        "_timeout_ns",
        "_transmitter",
        "_wire_bytes",
    )

    def __init__(self, env: simpy.Environment, channel: Channel, *, timeout_ns: int, max_retransmissions: int) -> None:
        self._env = env
        self._timeout_ns = timeout_ns
        self._max_retransmissions = max_retransmissions
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
        self._wire_bytes = 0

    def send(self, payload_bytes: int) -> simpy.Event:
        """Hand over one message now; the event succeeds with its `Transfer` when it is delivered or given up."""
        assert payload_bytes >= 0, f"a message can't have {payload_bytes} bytes"
        num_packets = self._framing.num_packets(payload_bytes)
        first_packet = self._packets
        flight = _Flight(
            message=self._messages,
            payload_bytes=payload_bytes,
            last_packet=first_packet + num_packets - 1,
            last_packet_bytes=self._framing.last_packet_bytes(payload_bytes),
            num_packets=num_packets,
            sent_ns=int(self._env.now),
            done=Delivery(self._env),
        )
        flight.done.callbacks.append(self._count_end)
        self._messages += 1
        self._payload_bytes += payload_bytes
        self._packets += num_packets
        burst, missing = self._transmit(flight, range(first_packet, first_packet + num_packets))
        flight.first_start_ns, flight.first_end_ns = burst.start_ns, burst.end_ns
        self._conclude(flight, burst, missing)
        return flight.done

    def _transmit(self, flight: _Flight, packets: Sequence[int]) -> tuple[Burst, list[int]]:
        """One round: what the queue took of these packets, and which of them did not get through."""
        with_last = packets[-1] == flight.last_packet
        num_full = len(packets) - with_last
        burst = self._transmitter.offer(int(self._env.now), num_full, flight.last_packet_bytes if with_last else 0)
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

    def _conclude(self, flight: _Flight, burst: Burst, missing: list[int]) -> None:
        """After a round: the message is complete, or is repeated in part, or is given up."""
        now_ns = int(self._env.now)
        timeout_ns = burst.end_ns + self._timeout_ns
        if not missing:
            propagate_ns, jitter_ns = self._propagation_ns, self._jitter.delay_ns(flight.message, flight.sent_ns)
            ended_ns = burst.end_ns + propagate_ns + jitter_ns
            transfer = _account(flight, ended_ns, propagate_ns, jitter_ns, fate=Fate.DELIVERED)
            flight.done.settle(transfer, ended_ns - now_ns)
        elif flight.attempt < self._max_retransmissions:
            Timer(self._env, timeout_ns - now_ns, lambda _: self._repeat(flight, missing))
        else:
            flight.done.settle(_account(flight, timeout_ns, 0, 0, fate=Fate.TIMEOUT), timeout_ns - now_ns)

    def _repeat(self, flight: _Flight, missing: list[int]) -> None:
        flight.attempt += 1
        flight.num_retransmissions += len(missing)
        self._retransmissions += len(missing)
        self._conclude(flight, *self._transmit(flight, missing))

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
        )


def _account(flight: _Flight, ended_ns: int, propagate_ns: int, jitter_ns: int, *, fate: Fate) -> Transfer:
    """The exact breakdown: what no other part explains is time lost to retransmission."""
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
        propagate_ns=propagate_ns,
        jitter_ns=jitter_ns,
        retransmit_ns=ended_ns - jitter_ns - propagate_ns - flight.first_end_ns,
    )
