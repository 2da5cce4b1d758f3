"""Packets between a port and its far end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import simpy
from simpy.events import URGENT

from testbed.network_models.ports.packet import OneByOne, Packet


class Trains(OneByOne):
    """What a port has put on its medium. Ports inherit it: an object of its own would cost every idle link its memory.

    Packets that come out in the order in which they went in, as those of one message do, are a *train*: one event,
    placed on SimPy's heap for its first packet and again for each next one, so that the heap holds an entry a train
    and not a packet. Packets come out ahead of everything of normal priority at their instant.
    """

    __slots__ = ("_env", "_train")

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._train: _Train | None = None  # the latest

    def _bring(self, packet: Packet, out_ns: int) -> None:
        """It goes onward at `out_ns`, now or later."""
        packet.out_ns = out_ns
        train = self._train
        if train is None or not train.take(packet):
            self._train = _Train(self._env, packet)


class _Train(simpy.Event):
    """A run of packets with ascending times; what is left of it is on the heap as this one event."""

    __slots__ = ("_first", "_last", "_message", "_ok", "callbacks", "env")  # those of the event too: no dictionary

    def __init__(self, env: simpy.Environment, packet: Packet) -> None:
        self.env = env
        self.callbacks = _OUT
        self._ok = True
        self._message = packet.message
        self._first: Packet | None = packet
        self._last = packet
        env.schedule(self, URGENT, packet.out_ns - env.now)

    def take(self, packet: Packet) -> bool:
        """Whether this packet may ride along."""
        if packet.message != self._message or self._first is None or packet.out_ns < self._last.out_ns:
            return False
        self._last.behind = packet
        self._last = packet
        return True

    def out(self) -> None:
        """The first packet is out; the event goes back on the heap for the next."""
        packet = self._first
        assert packet is not None
        following = self._first = packet.behind
        if following is not None:
            packet.behind = None
            self.callbacks = _OUT
            self.env.schedule(self, URGENT, following.out_ns - packet.out_ns)
        packet.onward()


def _out(train: simpy.Event) -> None:
    assert isinstance(train, _Train)
    train.out()


_OUT: list[Callable[[Any], None]] = [_out]  # all trains' callbacks
