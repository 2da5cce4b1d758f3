"""What lies behind a port: loss, wrong bits, second copies and delay of the packets that have left it."""

from __future__ import annotations

from dataclasses import replace

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.ports.flight import Trains
from testbed.network_models.ports.packet import Packet


class Medium(Trains):
    """One direction of one hop, from a port's last bit to its far end. Packets are told of in order of leaving."""

    __slots__ = ("_channel", "_last_out_ns")

    def __init__(self, env: simpy.Environment, channel: Channel) -> None:
        super().__init__(env)
        self._channel = channel
        self._last_out_ns = 0

    @property
    def propagation_ns(self) -> int:
        return self._channel.propagation_ns

    def _carry(self, packet: Packet, left_ns: int, *, is_spoilt: bool = False) -> None:
        """Its last bit leaves at `left_ns`, now or later; `is_spoilt`: whatever the channel's loss says, it is lost."""
        channel = self._channel
        propagation_ns, jitter_ns = channel.propagation_ns, channel.jitter.packet_delay_ns(packet, left_ns)
        out_ns = left_ns + propagation_ns + jitter_ns
        if channel.keeps_order:
            out_ns = self._last_out_ns = max(out_ns, self._last_out_ns)
            jitter_ns = out_ns - left_ns - propagation_ns
        if packet.hop:
            packet.propagate_ns += propagation_ns
            packet.jitter_ns += jitter_ns
        else:
            packet.propagate_ns, packet.jitter_ns = propagation_ns, jitter_ns
        number, attempt = packet.number, packet.attempt
        if channel.loss.is_lost(number, attempt, left_ns) or is_spoilt:
            packet.end.lost(packet, out_ns)
            return
        if channel.corruption is not None and channel.corruption.is_lost(number, attempt, left_ns):
            packet.is_corrupt = True
            if packet.is_checked:
                packet.end.lost(packet, out_ns)
                return
        copy = None
        if channel.duplication is not None and channel.duplication.is_lost(number, attempt, left_ns):
            copy = replace(packet)
        self._bring(packet, out_ns)
        if copy is not None:
            self._bring(copy, out_ns)
