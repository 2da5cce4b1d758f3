"""A drop-tail port: when a packet leaves is known when it comes, so it takes one event."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.clock import Timer
from testbed.network_models.ports.packet import Packet
from testbed.network_models.rates.segments import finish_ns


class FifoPort:
    """One direction of one link with a byte limit; starts follow Lindley's recursion."""

    def __init__(self, env: simpy.Environment, channel: Channel) -> None:
        self._env = env
        self._channel = channel
        self._limit_bytes = channel.queue_limit_bytes
        self._busy_until_ns = 0
        self._held: deque[tuple[int, int]] = deque()  # (leaves at, bytes) of what waits or is in service
        self._held_bytes = 0
        self.busy_ns = 0
        self.wire_bytes = 0
        self.peak_backlog_bytes = 0
        self.dropped_packets = 0
        self.lost_packets = 0

    def offer(self, packet: Packet) -> None:
        now_ns, channel = int(self._env.now), self._channel
        backlog_bytes = self.backlog_bytes(now_ns) + packet.size_bytes
        if backlog_bytes > self._limit_bytes:
            self.dropped_packets += 1
            if packet.hop == 0:
                packet.end.dropped(packet)
            return
        start_ns = max(now_ns, self._busy_until_ns)
        left_ns = self._busy_until_ns = finish_ns(channel.rate, start_ns, packet.size_bytes)
        self._held.append((left_ns, packet.size_bytes))
        self._held_bytes = backlog_bytes
        self.peak_backlog_bytes = max(self.peak_backlog_bytes, backlog_bytes)
        self.wire_bytes += packet.size_bytes
        self.busy_ns += left_ns - start_ns
        if packet.hop == 0:
            packet.end.left(packet, left_ns)
        if channel.loss.is_lost(packet.number, packet.attempt, left_ns):
            self.lost_packets += 1
            return
        jitter_ns = channel.jitter.delay_ns(packet.message)
        packet.queue_ns += start_ns - now_ns
        packet.serialise_ns += left_ns - start_ns
        packet.propagate_ns += channel.propagation_ns
        packet.jitter_ns += jitter_ns
        Timer(self._env, left_ns + channel.propagation_ns + jitter_ns - now_ns, _onward(packet))

    def backlog_bytes(self, now_ns: int) -> int:
        """Of the packets whose last bit has not left by now."""
        while self._held and self._held[0][0] <= now_ns:
            self._held_bytes -= self._held.popleft()[1]
        return self._held_bytes


def _onward(packet: Packet) -> Callable[[simpy.Event], None]:
    return lambda _: packet.onward()
