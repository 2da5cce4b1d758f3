"""Packet loss: which transmissions of which packets never arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from testbed.core.rng import U64Array, probability_u32
from testbed.network_models.origin import Origin
from testbed.network_models.rates.segments import Rate
from testbed.scenarios.base import LossProbability
from testbed.scenarios.pieces import LossConfig

ATTEMPT_SHIFT = 40  # a packet's number lies below, its transmission's above
_FIRST_BLOCK, _LAST_BLOCK = 128, 4096  # first transmissions drawn at a time
_NOTHING_AHEAD: tuple[int, int, frozenset[int]] = (0, 0, frozenset())
_FEW = 32  # under this many, plain ints beat an array


class Bernoulli:
    """A fate that meets every transmission with the same probability, independently of all others.

    Transmission `attempt` (0 is the first) of the link's packet number k has its own key (attempt, k). So what other
    messages did in between, and when, can't change its fate.
    """

    __slots__ = ("_ahead", "_drawn_until", "_draws", "_next_lost", "_threshold", "_upcoming")

    def __init__(self, p: float, origin: Origin, name: str) -> None:
        self._threshold = probability_u32(p)
        self._draws = origin.draws(name)
        self._upcoming: list[int] | None = (
            None  # packets whose first transmission will be lost, drawn ahead, latest first
        )
        self._drawn_until = 0
        self._ahead = _NOTHING_AHEAD
        self._next_lost = 0  # the next of them, or how far was drawn

    def lost(self, packets: Sequence[int], attempt: int) -> list[int]:
        """Those of `packets` (ascending numbers) whose transmission `attempt` is lost.

        First transmissions must be asked for in ascending order over all calls.
        """
        if not packets or not self._threshold:
            return []
        if attempt == 0:
            return self._first_lost(packets) if packets[-1] >= self._next_lost else []
        if len(packets) < _FEW:
            counter = attempt << ATTEMPT_SHIFT
            draws = [self._draws.u64(counter | packet) >> 32 for packet in packets]
            return [packet for packet, u32 in zip(packets, draws, strict=True) if u32 < self._threshold]
        first = packets[0]
        is_lost = self._is_lost(attempt, first, packets[-1] + 1 - first)
        return [packet for packet in packets if is_lost[packet - first]]

    def is_lost(self, packet: int, attempt: int, time_ns: int) -> bool:
        """Whether this one transmission is lost. First ones are drawn ahead, wherever they don't go back."""
        if not self._threshold:
            return False
        if attempt == 0:
            first, stop, lost = self._ahead
            if packet >= stop:
                first, stop, lost = self._ahead = self._block(packet)
            if packet >= first:
                return packet in lost
        return self._draws.u64(attempt << ATTEMPT_SHIFT | packet) >> 32 < self._threshold

    def _first_lost(self, packets: Sequence[int]) -> list[int]:
        stop, found = packets[-1] + 1, list[int]()
        if stop > self._drawn_until:
            self._draw_ahead(stop)
        while self._upcoming and self._upcoming[-1] < stop:
            packet = self._upcoming.pop()
            if packet in packets:  # not so where the queue had dropped it
                found.append(packet)
        self._next_lost = self._upcoming[-1] if self._upcoming else self._drawn_until
        return found

    def _block(self, first: int) -> tuple[int, int, frozenset[int]]:
        """The first transmissions of packets from `first` until a last one, exclusive, and which of them are lost."""
        count = min(max(first, _FIRST_BLOCK), _LAST_BLOCK)
        lost = first + np.flatnonzero(self._is_lost(0, first, count))
        return first, first + count, frozenset(lost.tolist())

    def _draw_ahead(self, stop: int) -> None:
        """At least to `stop`, and as many again as there were, within limits: a link that sends little draws little."""
        first = self._drawn_until
        count = max(min(max(first, _FIRST_BLOCK), _LAST_BLOCK), stop - first)
        lost = first + np.flatnonzero(self._is_lost(0, first, count))
        self._upcoming = [*lost[::-1].tolist(), *(self._upcoming or ())]
        self._drawn_until = first + count

    def _is_lost(self, attempt: int, first_packet: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        draws: U64Array = self._draws.u64_run(attempt << ATTEMPT_SHIFT | first_packet, count)
        return (draws >> np.uint64(32)) < np.uint64(self._threshold)


class BernoulliLoss(Bernoulli):
    """Every transmission is lost with the same probability, independently of all others."""

    class Config(LossConfig):
        kind: Literal["bernoulli"] = "bernoulli"
        p: LossProbability

    __slots__ = ()

    def __init__(self, config: Config, origin: Origin, rate: Rate) -> None:
        super().__init__(config.p, origin, "loss")
