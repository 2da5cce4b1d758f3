"""Packets between a port and its far end."""

from __future__ import annotations

from collections import deque

import simpy
from simpy.events import URGENT

from testbed.network_models.ports.packet import Packet


class Trains:
    """What a port has put on its medium.

    Packets that come out in the order in which they went in, as those of one message do, are a *train*: one event,
    placed on SimPy's heap for its first packet and again for each next one, so that the heap holds an entry a train
    and not a packet. Packets come out ahead of everything of normal priority at their instant.
    """

    __slots__ = ("_env", "_last")

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._last: _Train | None = None

    def add(self, packet: Packet, out_ns: int) -> None:
        """It goes onward at `out_ns`, now or later."""
        last = self._last
        if last is not None and last.take(packet, out_ns):
            return
        self._last = _Train(self._env, packet, out_ns)


class _Train(simpy.Event):
    """A run of packets with ascending times; what is left of it is on the heap as this one event."""

    def __init__(self, env: simpy.Environment, packet: Packet, out_ns: int) -> None:
        super().__init__(env)
        self._ok = True
        self._value = None
        self._message = packet.message
        self._packets: deque[tuple[int, Packet]] = deque(((out_ns, packet),))
        self._last_ns = out_ns
        self._stops = self.callbacks
        self._stops.append(_stop)
        env.schedule(self, URGENT, out_ns - env.now)

    def take(self, packet: Packet, out_ns: int) -> bool:
        """Whether this packet may ride along."""
        if packet.message != self._message or out_ns < self._last_ns or not self._packets:
            return False
        self._packets.append((out_ns, packet))
        self._last_ns = out_ns
        return True

    def stop(self) -> None:
        """The first packet is out; the event goes back on the heap for the next."""
        packets = self._packets
        packet = packets.popleft()[1]
        if packets:
            self.callbacks = self._stops
            self.env.schedule(self, URGENT, packets[0][0] - self.env.now)
        packet.onward()


def _stop(train: simpy.Event) -> None:
    assert isinstance(train, _Train)
    train.stop()
