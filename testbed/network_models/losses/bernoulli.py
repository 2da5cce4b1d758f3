"""Packet loss: which transmissions of which packets never arrive."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

from testbed.core.rng import probability_u32
from testbed.network_models.origin import Origin
from testbed.network_models.rates.segments import Rate
from testbed.scenarios.base import LossProbability
from testbed.scenarios.pieces import LossConfig

ATTEMPT_SHIFT = 40  # a packet's number lies below, its transmission's above
_FIRST_BLOCK, _LAST_BLOCK = 512, 8192  # first transmissions drawn at a time; 64 kB arrays stay in a core's cache
_NOTHING_AHEAD: tuple[int, int, frozenset[int]] = (0, 0, frozenset())


class Bernoulli:
    """A fate that meets every transmission with the same probability, independently of all others.

    Transmission `attempt` (0 is the first) of the link's packet number k has its own key (attempt, k). So what other
    messages did in between, and when, can't change its fate.
    """

    __slots__ = ("_ahead", "_drawn_until", "_draws", "_next_lost", "_threshold", "_upcoming")

    def __init__(self, p: float, origin: Origin, name: str) -> None:
        self._threshold = probability_u32(p)
        self._draws = origin.draws(name)
        self._upcoming: list[int] | None = None  # packets whose first transmission will be lost, drawn ahead
        self._drawn_until = 0
        self._ahead = _NOTHING_AHEAD
        self._next_lost = 0  # the first of them, or how far was drawn

    def lost(self, packets: Sequence[int], attempt: int) -> list[int]:
        """Those of `packets` (ascending numbers) whose transmission `attempt` is lost.

        First transmissions must be asked for in ascending order over all calls.
        """
        if not packets or not self._threshold:
            return []
        if attempt == 0:
            return self._first_lost(packets) if packets[-1] >= self._next_lost else []
        return self._draws.where_below(self._threshold, packets, attempt << ATTEMPT_SHIFT)

    def is_lost(self, packet: int, attempt: int, time_ns: int) -> bool:
        """Whether this one transmission is lost. First ones are drawn ahead, wherever they don't go back."""
        if not self._threshold:
            return False
        if attempt == 0:
            first, stop, lost = self._ahead
            if packet >= stop:
                first, (stop, ahead) = packet, self._block(packet, packet + 1)
                lost = frozenset(ahead)
                self._ahead = first, stop, lost
            if packet >= first:
                return packet in lost
        return self._draws.u64(attempt << ATTEMPT_SHIFT | packet) >> 32 < self._threshold

    def _first_lost(self, packets: Sequence[int]) -> list[int]:
        stop = packets[-1] + 1
        upcoming = self._drawn_to(stop)
        place = bisect_left(upcoming, stop)
        found = upcoming[:place]
        del upcoming[:place]
        self._next_lost = upcoming[0] if upcoming else self._drawn_until
        if found and len(packets) < stop - min(found[0], packets[0]):  # the queue had dropped some
            return [packet for packet in found if packet in packets]
        return found

    def _drawn_to(self, stop: int) -> list[int]:
        """Packets whose first transmission will be lost, at least to `stop`."""
        upcoming = self._upcoming or []
        while self._drawn_until < stop:
            self._drawn_until, lost = self._block(self._drawn_until, stop)
            upcoming += lost
        self._upcoming = upcoming
        return upcoming

    def _block(self, first: int, wanted: int) -> tuple[int, list[int]]:
        """Packets from `first` on: where they end, exclusive, and which of them lose their first transmission.

        To `wanted`, and thrice as many as there were, within limits: a link that sends little draws little.
        """
        stop = first + min(max(3 * first, wanted - first, _FIRST_BLOCK), _LAST_BLOCK)
        return stop, self._draws.where_below(self._threshold, range(first, stop))


class BernoulliLoss(Bernoulli):
    """Every transmission is lost with the same probability, independently of all others."""

    class Config(LossConfig):
        kind: Literal["bernoulli"] = "bernoulli"
        p: LossProbability

    __slots__ = ()

    def __init__(self, config: Config, origin: Origin, rate: Rate) -> None:
        super().__init__(config.p, origin, "loss")
