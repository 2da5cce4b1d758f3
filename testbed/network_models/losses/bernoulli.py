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
_BLOCK = 512  # first transmissions drawn at a time
_FEW = 32  # under this many, plain ints beat an array


class Bernoulli:
    """A fate that meets every transmission with the same probability, independently of all others.

    Transmission `attempt` (0 is the first) of the link's packet number k has its own key (attempt, k). So what other
    messages did in between, and when, can't change its fate.
    """

    __slots__ = ("_drawn_until", "_entity", "_stream", "_threshold", "_upcoming")

    def __init__(self, p: float, origin: Origin, name: str) -> None:
        self._threshold = probability_u32(p)
        self._stream = origin.stream(name)
        self._entity = origin.entity
        self._upcoming: list[int] = []  # packets whose first transmission will be lost, drawn ahead, latest first
        self._drawn_until = 0

    def lost(self, packets: Sequence[int], attempt: int) -> list[int]:
        """Those of `packets` (ascending numbers) whose transmission `attempt` is lost.

        First transmissions must be asked for in ascending order over all calls.
        """
        if not packets or not self._threshold:
            return []
        if attempt == 0:
            return self._first_lost(packets)
        if len(packets) < _FEW:
            counter = attempt << ATTEMPT_SHIFT
            draws = [self._stream.u64(self._entity, counter | packet) >> 32 for packet in packets]
            return [packet for packet, u32 in zip(packets, draws, strict=True) if u32 < self._threshold]
        first = packets[0]
        is_lost = self._is_lost(attempt, first, packets[-1] + 1 - first)
        return [packet for packet in packets if is_lost[packet - first]]

    def is_lost(self, packet: int, attempt: int, time_ns: int) -> bool:
        """Whether this one transmission is lost."""
        return self._stream.u64(self._entity, attempt << ATTEMPT_SHIFT | packet) >> 32 < self._threshold

    def _first_lost(self, packets: Sequence[int]) -> list[int]:
        stop = packets[-1] + 1
        if stop > self._drawn_until:
            self._draw_ahead(stop)
        found = []
        while self._upcoming and self._upcoming[-1] < stop:
            packet = self._upcoming.pop()
            if packet in packets:  # not so where the queue had dropped it
                found.append(packet)
        return found

    def _draw_ahead(self, stop: int) -> None:
        first = self._drawn_until
        count = max(_BLOCK, stop - first)
        lost = first + np.flatnonzero(self._is_lost(0, first, count))
        self._upcoming[:0] = lost[::-1].tolist()
        self._drawn_until = first + count

    def _is_lost(self, attempt: int, first_packet: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        draws: U64Array = self._stream.u64_run(self._entity, attempt << ATTEMPT_SHIFT | first_packet, count)
        return (draws >> np.uint64(32)) < np.uint64(self._threshold)


class BernoulliLoss(Bernoulli):
    """Every transmission is lost with the same probability, independently of all others."""

    class Config(LossConfig):
        kind: Literal["bernoulli"] = "bernoulli"
        p: LossProbability

    __slots__ = ()

    def __init__(self, config: Config, origin: Origin, rate: Rate) -> None:
        super().__init__(config.p, origin, "loss")
