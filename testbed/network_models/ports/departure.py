"""What every port does with a packet once it is known when its bits leave: loss, delay, the way to the far end."""

from __future__ import annotations

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.ports.flight import Trains
from testbed.network_models.ports.packet import Packet


class DeparturePort:
    """Base of ports: one direction of one hop, on this channel."""

    __slots__ = ("_channel", "_env", "_trains")

    def __init__(self, env: simpy.Environment, channel: Channel) -> None:
        self._env = env
        self._channel = channel
        self._trains = Trains(env)

    def _depart(self, packet: Packet, came_ns: int, start_ns: int, left_ns: int, *, is_spoilt: bool = False) -> None:
        """It came, and its first and last bit leave at these times, the last of them now or later.

        `is_spoilt`: lost on the air, whatever the channel's own loss says.
        """
        channel = self._channel
        packet.queue_ns += start_ns - came_ns
        packet.serialise_ns += left_ns - start_ns
        if packet.hop == 0:
            packet.start_ns, packet.left_ns = start_ns, left_ns
            packet.end.left(packet, left_ns)
        jitter_ns = channel.jitter.delay_ns(packet.message)
        out_ns = left_ns + channel.propagation_ns + jitter_ns
        if is_spoilt or channel.loss.is_lost(packet.number, packet.attempt, left_ns):
            packet.end.lost(packet, out_ns)
            return
        packet.propagate_ns += channel.propagation_ns
        packet.jitter_ns += jitter_ns
        self._trains.add(packet, out_ns)
