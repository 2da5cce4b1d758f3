"""Packets between a port and its far end."""

from __future__ import annotations

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
        packet.out_ns = out_ns
        last = self._last
        if last is None or not last.take(packet):
            self._last = _Train(self._env, packet)


class _Train(simpy.Event):
    """A run of packets with ascending times; what is left of it is on the heap as this one event."""

    def __init__(self, env: simpy.Environment, packet: Packet) -> None:
        super().__init__(env)
        self._ok = True
        self._value = None
        self._message = packet.message
        self._first: Packet | None = packet
        self._last = packet
        self._stops = self.callbacks
        self._stops.append(_stop)
        env.schedule(self, URGENT, packet.out_ns - env.now)

    def take(self, packet: Packet) -> bool:
        """Whether this packet may ride along."""
        if packet.message != self._message or self._first is None or packet.out_ns < self._last.out_ns:
            return False
        self._last.behind = packet
        self._last = packet
        return True

    def stop(self) -> None:
        """The first packet is out; the event goes back on the heap for the next."""
        packet = self._first
        assert packet is not None
        following = self._first = packet.behind
        if following is not None:
            packet.behind = None
            self.callbacks = self._stops
            self.env.schedule(self, URGENT, following.out_ns - packet.out_ns)
        packet.onward()


def _stop(train: simpy.Event) -> None:
    assert isinstance(train, _Train)
    train.stop()
