"""A port with a CoDel queue: it decides packet after packet, so each one that leaves is an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.clock import Timer
from testbed.network_models.ports.medium import Medium
from testbed.network_models.ports.packet import Packet, PortUsage
from testbed.network_models.queues.codel_law import CodelQueue
from testbed.network_models.rates.segments import finish_ns

if TYPE_CHECKING:
    from testbed.network_models.queues.codel import Codel


class CodelPort(Medium):
    """One direction of one link; packets leave in the order offered, but for those that are dropped.

    A packet that doesn't fit when it comes is dropped at once. It holds its bytes until its last bit has left.
    """

    __slots__ = (
        "_busy_total_ns",
        "_busy_until_ns",
        "_dropped_packets",
        "_in_service_bytes",
        "_is_serving",
        "_limit_bytes",
        "_peak_backlog_bytes",
        "_queue",
        "_rate",
    )

    def __init__(self, env: simpy.Environment, channel: Channel) -> None:
        config = cast("Codel.Config", channel.queue)
        super().__init__(env, channel)
        self._rate = channel.rate
        self._limit_bytes = config.limit
        self._queue = CodelQueue(
            target_ns=config.target, interval_ns=config.interval, packet_bytes=channel.framing.mtu_bytes
        )
        self._is_serving = False  # a packet is in service, or the next is being chosen
        self._in_service_bytes = 0
        self._busy_until_ns = self._busy_total_ns = self._peak_backlog_bytes = self._dropped_packets = 0

    def offer(self, packet: Packet) -> None:
        now_ns = int(self._env.now)
        backlog_bytes = self._backlog_bytes(now_ns) + packet.size_bytes
        if backlog_bytes > self._limit_bytes:
            self._drop(packet, now_ns)
            return
        self._peak_backlog_bytes = max(self._peak_backlog_bytes, backlog_bytes)
        self._queue.push(packet, now_ns)
        if not self._is_serving:
            self._serve_next(now_ns)

    def _serve_next(self, now_ns: int) -> None:
        """The transmitter is free: the next packet that is not dropped goes out."""
        self._is_serving = True
        self._in_service_bytes = 0
        waiting = self._queue.pop(now_ns, lambda packet: self._drop(packet, now_ns))
        if waiting is None:
            self._is_serving = False
            return
        packet = waiting.packet
        left_ns = self._busy_until_ns = finish_ns(self._rate, now_ns, packet.size_bytes)
        self._in_service_bytes = packet.size_bytes
        self._busy_total_ns += left_ns - now_ns
        Timer(self._env, left_ns - now_ns, lambda _: self._serve_next(left_ns))
        packet.leaves(waiting.since_ns, now_ns, left_ns)
        self._carry(packet, left_ns)

    def _drop(self, packet: Packet, now_ns: int) -> None:
        self._dropped_packets += 1
        packet.refused(now_ns)

    def _backlog_bytes(self, now_ns: int) -> int:
        """Waiting, and in service until the last bit has left."""
        in_service_bytes = self._in_service_bytes if now_ns < self._busy_until_ns else 0
        return self._queue.waiting_bytes + in_service_bytes

    def usage(self, now_ns: int) -> PortUsage:
        busy_ns = self._busy_total_ns - max(0, self._busy_until_ns - now_ns)
        return PortUsage(busy_ns, self._backlog_bytes(now_ns), self._peak_backlog_bytes, self._dropped_packets)
