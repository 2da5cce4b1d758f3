"""Contention raises loss: transmissions that end while others contend may be lost to them."""

from __future__ import annotations

from testbed.core.rng import probability_u32
from testbed.network_models.origin import Origin

_ATTEMPT_SHIFT = 40  # a packet's number lies below, its transmission's above


class Collisions:
    """Each other member with something to send spoils a transmission with probability `p`, independently.

    Among n it is lost with probability 1 - (1 - p)^(n - 1): our own design, after the slotted contention of carrier
    sensing. Each transmission has one draw, keyed as its loss is: other members change n, never the draw.
    """

    __slots__ = ("_entity", "_p", "_stream", "_survival", "_thresholds")

    def __init__(self, p: float, origin: Origin) -> None:
        self._p = p
        self._stream = origin.stream("collision")
        self._entity = origin.entity
        self._survival = 1.0  # among as many as there are thresholds
        self._thresholds = [0]  # among one, two, ...

    def is_lost(self, packet: int, attempt: int, num_contending: int) -> bool:
        """Whether this transmission, at whose end so many members contend, is lost to them."""
        if not self._p or num_contending == 1:
            return False
        while len(self._thresholds) < num_contending:
            self._survival *= 1.0 - self._p
            self._thresholds.append(probability_u32(1.0 - self._survival))
        draw = self._stream.u64(self._entity, attempt << _ATTEMPT_SHIFT | packet) >> 32
        return draw < self._thresholds[num_contending - 1]
