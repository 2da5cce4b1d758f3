"""How a scenario stores keys and values: one width before the cut, one behind it."""

from __future__ import annotations

from testbed.scenarios.base import Block
from testbed.scenarios.weights import Bits


class KV(Block):
    """Bits of the KV caches of the layers before the cut (front) and behind it (back); null: the scenario's dtype."""

    front_bits: Bits | None = None
    back_bits: Bits | None = None
