"""Packets of one message that are handed to a port together, back to back."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import simpy
from simpy.events import URGENT

from testbed.network_models.ports.packet import End, Packet, Path


class Departure(NamedTuple):
    """Packets of one message that leave the first port in turn."""

    num_packets: int
    wire_bytes: int
    start_ns: int  # the first one's first bit
    end_ns: int  # the last one's last bit


class Arrival(Protocol):
    """What has arrived at its end: a packet, or a round of which one has."""

    def packet(self) -> Packet:
        """The one that has, made now where nobody asked before."""
        ...


class RoundEnd(End, Protocol):
    """Who sends rounds."""

    def departed(self, content: object, packets: Departure) -> None:
        """In place of `left`, for packets that leave in turn, then, now or later; the rest of their round is not."""
        ...

    def came(self, packets: Round) -> None:
        """In place of `arrived`, for one of a round that no other transmission can double: `packets.packet()`."""
        ...


class Round(simpy.Event):
    """Packets of one message and attempt, in order.

    Where a port knows at once when each of them comes out, the round is the train they travel in: an event for each
    coming, one after the other. Tens of thousands of packets are under way at once; of those in a round only the times
    are kept when they left, and there is a `Packet` only of what goes on, was lost, or is asked for.
    """

    __slots__ = (
        "_arrived",
        "_came_ns",
        "_is_direct",
        "_jitter_ns",
        "_lost",
        "_next",
        "_ok",
        "_propagate_ns",
        "_times_ns",
        "attempt",
        "callbacks",
        "content",
        "end",
        "env",
        "full_bytes",
        "is_checked",
        "message",
        "numbers",
        "path",
        "sent_ns",
        "short",
        "short_bytes",
    )

    def __init__(
        self,
        env: simpy.Environment,
        end: RoundEnd,
        path: Path,
        numbers: Sequence[int],
        *,
        attempt: int,
        message: int,
        sent_ns: int,
        content: object,
        is_checked: bool,
        full_bytes: int,
        short: range,
        short_bytes: int,
    ) -> None:
        self.env = env
        self.end = end
        self.path = path
        self.numbers = numbers
        self.attempt = attempt
        self.message = message
        self.sent_ns = sent_ns
        self.content = content
        self.is_checked = is_checked
        self.full_bytes = full_bytes
        self.short = short  # numbers of the packets that have `short_bytes`
        self.short_bytes = short_bytes
        self._ok = True

    def sizes_bytes(self) -> list[int]:
        """Of each."""
        full_bytes, short_bytes, short = self.full_bytes, self.short_bytes, self.short
        return [short_bytes if number in short else full_bytes for number in self.numbers]

    def packets(self) -> Iterator[Packet]:
        """Each of them, before it goes."""
        return map(self._packet, self.numbers)

    def _packet(self, number: int) -> Packet:
        path, size_bytes = self.path, self.short_bytes if number in self.short else self.full_bytes
        key = path.entity, number, self.attempt, self.message, self.sent_ns
        return Packet(size_bytes, self.end, path.ports, *key, self.content, 0, self.is_checked)

    def depart(self, times_ns: array[int], lost: Sequence[int], *, propagate_ns: int, jitter_ns: int) -> None:
        """Each leaves between one of `times_ns` and the next; those at places `lost` never come out."""
        self._times_ns, self._lost = times_ns, lost
        self._came_ns = int(self.env.now)
        self._propagate_ns, self._jitter_ns = propagate_ns, jitter_ns
        self._is_direct = len(self.path.ports) == 1
        self._await_next(0, self._came_ns - propagate_ns - jitter_ns)
        for place in lost:
            self.end.lost(self._sent(place), times_ns[place + 1] + propagate_ns + jitter_ns)

    def _await_next(self, place: int, last_ns: int) -> None:
        """The one at this place, or the first behind it that comes out; one that left at `last_ns` would now."""
        times_ns, lost = self._times_ns, self._lost
        while place in lost:
            place += 1
        if place + 1 < len(times_ns):
            self._next = place
            self.callbacks = _OUT
            self.env.schedule(self, URGENT, times_ns[place + 1] - last_ns)

    def out(self) -> None:
        """One is out."""
        place = self._arrived = self._next
        self._await_next(place + 1, self._times_ns[place + 1])
        if self._is_direct:
            self.end.came(self)
        else:
            self._sent(place).onward()

    def packet(self) -> Packet:
        return self._sent(self._arrived)

    def _sent(self, place: int) -> Packet:
        """The one at this place, that has left."""
        packet = self._packet(self.numbers[place])
        packet.came_ns = self._came_ns
        packet.start_ns, packet.left_ns = self._times_ns[place : place + 2]
        packet.propagate_ns, packet.jitter_ns = self._propagate_ns, self._jitter_ns
        return packet


def _out(packets: simpy.Event) -> None:
    assert isinstance(packets, Round)
    packets.out()


_OUT: list[Callable[[Any], None]] = [_out]  # all rounds' callbacks
