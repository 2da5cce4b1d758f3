"""Stop-and-wait, message by message: what becomes of a message is known when it is sent.

On a private queue nothing that comes later can change it: at most one packet is in the queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.clock import Delivery
from testbed.network_models.ports.packet import PortUsage
from testbed.network_models.rates.pacing import paced_ns
from testbed.network_models.rates.segments import FOREVER
from testbed.network_models.transfer import Fate, LinkSnapshot, Transfer
from testbed.network_models.transports.account import LinkAccount
from testbed.network_models.transports.arq import ArqConfig
from testbed.network_models.transports.paced_legs import Leg, Run, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    """What was sent; `round_trip_ns` is from a packet's last bit to its acknowledgement."""

    first_packet: int
    num_packets: int
    last_packet_bytes: int
    payload_bytes: int
    sent_ns: int
    deadline_ns: int
    round_trip_ns: int


class PacedLink(LinkAccount):
    """One direction of one access link, message by message."""

    __slots__ = (
        "_channel",
        "_config",
        "_env",
        "_free_ns",
        "_last_out_ns",
        "_legs",
        "_next_packet",
        "_past",
        "_return_ns",
    )

    def __init__(self, env: simpy.Environment, channel: Channel, config: ArqConfig, *, return_ns: int) -> None:
        super().__init__()
        self._env = env
        self._channel = channel
        self._config = config
        self._return_ns = return_ns
        self._last_out_ns = 0  # when what was sent last comes out
        self._free_ns = 0  # from when on the next message's first packet may go
        self._next_packet = 0
        self._past = Tally()  # of legs whose last bit has left
        self._legs: list[Leg] = []  # the others, in order

    def send(self, payload_bytes: int) -> simpy.Event:
        """Hand over one message now; the event succeeds with its `Transfer` when it is delivered or given up."""
        now_ns, channel, patience_ns = int(self._env.now), self._channel, self._config.patience
        jitter_ns = channel.jitter.delay_ns(self.num_messages, now_ns)
        num_packets, last_packet_bytes = channel.framing.cut(payload_bytes)
        message = _Message(
            first_packet=self._next_packet,
            num_packets=num_packets,
            last_packet_bytes=last_packet_bytes,
            payload_bytes=payload_bytes,
            sent_ns=now_ns,
            deadline_ns=FOREVER if patience_ns is None else now_ns + patience_ns,
            round_trip_ns=channel.propagation_ns + jitter_ns + self._return_ns,
        )
        self._count_message(payload_bytes)
        self._next_packet += message.num_packets
        self._pass(now_ns)
        transfer = self._carry(message)
        done = Delivery(self._env)
        done.callbacks.append(self.count_end)
        done.settle(transfer, transfer.ended_ns - now_ns)
        return done

    def _carry(self, message: _Message) -> Transfer:
        """All of a message's way; it waits until those before are through."""
        start_ns = max(message.sent_ns, self._free_ns)
        legs = list(self._until(message.deadline_ns, self._way(message, start_ns)))
        self._legs += legs
        fate, ended_ns = self._end(message, legs)
        if legs:
            last = legs[-1]
            self._free_ns = last.left_ns + last.pause_ns if fate is Fate.DELIVERED else max(ended_ns, last.left_ns)
            out_ns = last.left_ns + message.round_trip_ns - self._return_ns
            self._last_out_ns = max(self._last_out_ns, out_ns)
        return self._account(message, legs, start_ns, ended_ns=ended_ns, fate=fate)

    def _end(self, message: _Message, legs: list[Leg]) -> tuple[Fate, int]:
        """When the last packet arrives, the last time-out ends or the deadline comes, whichever is first."""
        if not legs:
            return Fate.TIMEOUT, message.deadline_ns
        last = legs[-1]
        arrived_ns = last.left_ns + last.pause_ns - self._return_ns
        num_arrived = sum(leg.run.num_packets for leg in legs if not leg.run.is_missing)
        if num_arrived == message.num_packets and arrived_ns <= message.deadline_ns:
            return Fate.DELIVERED, arrived_ns
        is_exhausted = last.run.is_missing and last.run.attempt == self._config.max_retransmissions
        timeout_ns = last.left_ns + self._config.timeout if is_exhausted else FOREVER
        return Fate.TIMEOUT, min(message.deadline_ns, timeout_ns)

    def _way(self, message: _Message, start_ns: int) -> Iterator[Leg]:
        """Leg by leg, until the last packet is through or one has been repeated as often as allowed."""
        for run in self._runs(message):
            for leg in self._legs_of(run, message, start_ns):
                yield leg
                start_ns = leg.left_ns + leg.pause_ns

    def _legs_of(self, run: Run, message: _Message, start_ns: int) -> Iterator[Leg]:
        """One leg, or two: where packets keep their order, the first that arrives may be held back."""
        rate, pause_ns = self._channel.rate, self._config.timeout if run.is_missing else message.round_trip_ns
        if self._channel.keeps_order and not run.is_missing:
            first_ns = paced_ns(rate, start_ns, run.size_bytes, 1, pause_ns)
            late_ns = self._last_out_ns - first_ns - pause_ns + self._return_ns
            if late_ns > 0:
                yield Leg(run._replace(num_packets=1), start_ns, first_ns, pause_ns + late_ns)
                start_ns = first_ns + pause_ns + late_ns
                run = run._replace(first_packet=run.first_packet + 1, num_packets=run.num_packets - 1)
        if run.num_packets:
            yield Leg(run, start_ns, paced_ns(rate, start_ns, run.size_bytes, run.num_packets, pause_ns), pause_ns)

    def _runs(self, message: _Message) -> Iterator[Run]:
        """Never an empty one."""
        full_bytes, last_bytes = self._channel.framing.mtu_bytes, message.last_packet_bytes
        packet, last_packet = message.first_packet, message.first_packet + message.num_packets - 1
        lost, corrupt = self._channel.missing(range(packet, last_packet + 1), 0)
        for missing in sorted([*lost, *corrupt]):
            if packet < missing:
                yield Run(packet, full_bytes, missing - packet)
            size_bytes = last_bytes if missing == last_packet else full_bytes
            yield Run(missing, size_bytes, 1, 0, missing in lost, missing in corrupt)
            for attempt in range(1, self._config.max_retransmissions + 1):
                lost_again, corrupt_again = self._channel.missing((missing,), attempt)
                run = Run(missing, size_bytes, 1, attempt, bool(lost_again), bool(corrupt_again))
                yield run
                if not run.is_missing:
                    break
            else:
                return
            packet = missing + 1
        if packet < last_packet:
            yield Run(packet, full_bytes, last_packet - packet)
        if packet <= last_packet:
            yield Run(last_packet, last_bytes, 1)

    def _until(self, deadline_ns: int, legs: Iterator[Leg]) -> Iterator[Leg]:
        """What is handed over before the deadline."""
        for leg in legs:
            if leg.start_ns >= deadline_ns:
                return
            yield leg.handed_over(self._channel.rate, deadline_ns - 1)

    def _pass(self, now_ns: int) -> None:
        """Legs whose last bit has left are history."""
        while self._legs and self._legs[0].left_ns <= now_ns:
            self._past.add(self._legs.pop(0), self._channel.duplication)

    def _account(self, message: _Message, legs: list[Leg], start_ns: int, *, ended_ns: int, fate: Fate) -> Transfer:
        """The exact breakdown: what no other part explains is time lost to retransmission."""
        propagate_ns = jitter_ns = 0
        if fate is Fate.DELIVERED:
            propagate_ns = self._channel.propagation_ns
            jitter_ns = ended_ns - legs[-1].left_ns - propagate_ns
        window_ns = min(start_ns, ended_ns) - message.sent_ns
        window_ns += sum(leg.run.num_packets * leg.pause_ns for leg in legs if not leg.run.is_missing)
        serialise_ns = sum(leg.serialise_ns for leg in legs if not leg.run.attempt)
        if legs and not legs[-1].run.is_missing:  # for the last packet's acknowledgement nothing waits
            window_ns -= legs[-1].pause_ns
        if legs and not legs[-1].run.attempt:  # what leaves after the end is not the message's time
            serialise_ns -= max(0, legs[-1].left_ns - ended_ns)
        return Transfer(
            sent_ns=message.sent_ns,
            ended_ns=ended_ns,
            payload_bytes=message.payload_bytes,
            wire_bytes=sum(leg.run.num_packets * leg.run.size_bytes for leg in legs),
            num_packets=message.num_packets,
            num_retransmissions=sum(leg.run.num_packets for leg in legs if leg.run.attempt),
            fate=fate,
            window_ns=window_ns,
            queue_ns=0,
            serialise_ns=serialise_ns,
            propagate_ns=propagate_ns,
            jitter_ns=jitter_ns,
            retransmit_ns=ended_ns - message.sent_ns - window_ns - serialise_ns - propagate_ns - jitter_ns,
        )

    def snapshot(self) -> LinkSnapshot:
        """The counters now; changes nothing."""
        now_ns, backlog_bytes = int(self._env.now), 0
        self._pass(now_ns)
        tally = replace(self._past)
        if self._legs and self._legs[0].start_ns <= now_ns:
            leg = self._legs[0].handed_over(self._channel.rate, now_ns)
            backlog_bytes = leg.run.size_bytes if leg.left_ns > now_ns else 0
            tally.add(leg._replace(left_ns=min(leg.left_ns, now_ns)), self._channel.duplication)
        usage = PortUsage(tally.busy_ns, backlog_bytes, tally.largest_bytes, self._dropped_packets)
        return replace(
            self._counted(usage),
            wire_bytes=tally.wire_bytes,
            packets=tally.packets,
            retransmissions=tally.retransmissions,
            lost_packets=tally.lost_packets,
            ack_bytes=tally.arrived_packets * self._channel.framing.header_bytes,
            duplicate_packets=tally.duplicate_packets,
            corrupt_packets=tally.corrupt_packets,
        )
