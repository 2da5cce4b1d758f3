"""A drop-tail port: when a packet leaves is known when it comes, so it takes one event."""

from __future__ import annotations

from array import array
from collections import deque
from itertools import accumulate, chain

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.ports.medium import Medium
from testbed.network_models.ports.packet import Packet, PortUsage
from testbed.network_models.ports.round import Departure, Round
from testbed.network_models.rates.segments import finish_ns, packet_ns


class FifoPort(Medium):
    """One direction of one link with a byte limit; starts follow Lindley's recursion.

    A packet holds its bytes in the queue until its last bit has left; one that leaves at t has made room for what is
    offered at t.
    """

    __slots__ = (
        "_busy_total_ns",
        "_busy_until_ns",
        "_dropped_packets",
        "_held",
        "_held_bytes",
        "_limit_bytes",
        "_peak_backlog_bytes",
        "_same_bytes",
        "_same_ns",
        "_same_until_ns",
    )

    def __init__(self, env: simpy.Environment, channel: Channel) -> None:
        super().__init__(env, channel)
        self._limit_bytes = channel.queue.limit
        self._busy_until_ns = self._busy_total_ns = self._dropped_packets = 0
        self._held: deque[int] | None = None  # when it leaves, its bytes: in turn, of what waits or is in service
        self._held_bytes = self._peak_backlog_bytes = 0
        self._same_bytes = self._same_ns = self._same_until_ns = 0  # a size's time while the rate stays the same

    def offer(self, packet: Packet) -> None:
        now_ns, size_bytes = int(self._env.now), packet.size_bytes
        backlog_bytes = self._backlog_bytes(now_ns) + size_bytes
        if backlog_bytes > self._limit_bytes:
            self._dropped_packets += 1
            packet.refused(now_ns)
            return
        self._held_bytes = backlog_bytes
        if backlog_bytes > self._peak_backlog_bytes:  # noqa: PLR1730 - a call for every packet costs
            self._peak_backlog_bytes = backlog_bytes
        busy_until_ns = self._busy_until_ns
        start_ns = busy_until_ns if busy_until_ns > now_ns else now_ns
        left_ns = self._clock_out(start_ns, size_bytes)
        packet.leaves(now_ns, start_ns, left_ns)
        self._carry(packet, left_ns)

    def offer_round(self, packets: Round) -> None:
        """At one go where there is room for all, the rate stays the same and they are delayed alike."""
        channel, now_ns, sizes_bytes = self._channel, int(self._env.now), packets.sizes_bytes()
        start_ns, size_bytes = max(self._busy_until_ns, now_ns), sum(sizes_bytes)
        rate_bps, until_ns = channel.rate.segment(start_ns)
        has_room = self._backlog_bytes(now_ns) + size_bytes <= self._limit_bytes
        if has_room and rate_bps and channel.delays_alike:
            ns_of = {size: packet_ns(size, rate_bps) for size in (packets.full_bytes, packets.short_bytes)}
            times_ns = array("q", accumulate(map(ns_of.__getitem__, sizes_bytes), initial=start_ns))
            if times_ns[-1] <= until_ns:
                self._take(packets, times_ns, sizes_bytes)
                return
        super().offer_round(packets)

    def _take(self, packets: Round, times_ns: array[int], sizes_bytes: list[int]) -> None:
        """All of them: each leaves between one time and the next."""
        channel, start_ns, end_ns = self._channel, times_ns[0], times_ns[-1]
        left_ns, size_bytes = times_ns[1:], sum(sizes_bytes)
        self._holding.extend(chain.from_iterable(zip(left_ns, sizes_bytes, strict=True)))
        is_lost, attempt, sent = channel.loss.is_lost, packets.attempt, zip(packets.numbers, left_ns, strict=True)
        lost = [place for place, (number, time_ns) in enumerate(sent) if is_lost(number, attempt, time_ns)]
        self._held_bytes += size_bytes
        self._peak_backlog_bytes = max(self._peak_backlog_bytes, self._held_bytes)
        self._busy_until_ns = end_ns
        self._busy_total_ns += end_ns - start_ns
        packets.end.departed(packets.content, Departure(len(sizes_bytes), size_bytes, start_ns, end_ns))
        jitter_ns = channel.jitter.delay_ns(packets.message, packets.sent_ns)
        packets.depart(times_ns, lost, propagate_ns=channel.propagation_ns, jitter_ns=jitter_ns)

    def _clock_out(self, start_ns: int, size_bytes: int) -> int:
        """Its last bit leaves at the time returned."""
        if size_bytes != self._same_bytes or start_ns >= self._same_until_ns:
            self._same_until_ns = self._channel.rate.segment(start_ns).end_ns
            self._same_bytes = size_bytes
            self._same_ns = finish_ns(self._channel.rate, start_ns, size_bytes) - start_ns
        left_ns = start_ns + self._same_ns
        if left_ns > self._same_until_ns:
            left_ns = finish_ns(self._channel.rate, start_ns, size_bytes)
        self._busy_until_ns = left_ns
        self._busy_total_ns += left_ns - start_ns
        held = self._holding
        held.append(left_ns)
        held.append(size_bytes)
        return left_ns

    @property
    def _holding(self) -> deque[int]:
        """Made when there is something to hold: idle links are many."""
        if self._held is None:
            self._held = deque()
        return self._held

    def _backlog_bytes(self, now_ns: int) -> int:
        """Of the packets whose last bit has not left by now."""
        held = self._held
        while held and held[0] <= now_ns:
            held.popleft()
            self._held_bytes -= held.popleft()
        return self._held_bytes

    def usage(self, now_ns: int) -> PortUsage:
        busy_ns = self._busy_total_ns - max(0, self._busy_until_ns - now_ns)
        return PortUsage(busy_ns, self._backlog_bytes(now_ns), self._peak_backlog_bytes, self._dropped_packets)
