"""A link's way into a cell: its own drop-tail queue in front of air that others use too."""

from __future__ import annotations

from collections.abc import Callable

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.ports.medium import Medium
from testbed.network_models.ports.packet import Packet, PortUsage
from testbed.network_models.sharing.collisions import Collisions
from testbed.network_models.sharing.member import Member, Served


class CellPort(Medium):
    """One direction of one link in a cell. When a packet leaves is known when it has left.

    A packet's wait begins when it comes and ends when it is first granted air; from there to its last bit it is being
    clocked out, however little of the air it has. Busy time is air time.
    """

    __slots__ = (
        "_collisions",
        "_dropped_packets",
        "_limit_bytes",
        "_member",
        "_peak_backlog_bytes",
    )

    def __init__(self, env: simpy.Environment, channel: Channel, member: Member, collisions: Collisions) -> None:
        super().__init__(env, channel)
        self._limit_bytes = channel.queue.limit
        self._member = member
        self._collisions = collisions
        self._peak_backlog_bytes = self._dropped_packets = 0

    def offer(self, packet: Packet) -> None:
        now_ns = int(self._env.now)
        backlog_bytes = self._member.backlog_bytes(now_ns) + packet.size_bytes
        if backlog_bytes > self._limit_bytes:
            self._dropped_packets += 1
            packet.refused(now_ns)
            return
        self._peak_backlog_bytes = max(self._peak_backlog_bytes, backlog_bytes)
        self._member.offer(packet.size_bytes, self._sent(packet, now_ns))

    def _sent(self, packet: Packet, came_ns: int) -> Callable[[Served], None]:
        def done(served: Served) -> None:
            start_ns, left_ns, num_contending = served
            packet.leaves(came_ns, start_ns, left_ns)
            is_spoilt = self._collisions.is_lost(packet.number, packet.attempt, num_contending)
            self._carry(packet, left_ns, is_spoilt=is_spoilt)

        return done

    def usage(self, now_ns: int) -> PortUsage:
        air_ns, backlog_bytes = self._member.air_ns(now_ns), self._member.backlog_bytes(now_ns)
        return PortUsage(air_ns, backlog_bytes, self._peak_backlog_bytes, self._dropped_packets)
