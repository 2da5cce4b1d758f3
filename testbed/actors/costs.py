"""How long a processor takes for a pass of a batch, layer by layer [our design].

A pass is ``overhead + embedding + sum over layers + head``, each term a whole number of nanoseconds by the laws of
`Roofline` or of a measured table (`TableKernels`). In each layer what the sequences running there bring adds up to one
load of whole numbers, so the order of a batch can't change its duration; a table measured on a whole model serves any
of its layers, which are alike, and counts embedding and head only where they run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from testbed.actors.kv import KVLaw
from testbed.actors.profile_table import ProfileTable, check_table
from testbed.actors.roofline import Roofline
from testbed.actors.table_costs import TableKernels
from testbed.actors.weights import WeightLaw, as_law
from testbed.core.work import Work
from testbed.models.kv_format import KVFormat
from testbed.models.shape import ModelShape
from testbed.scenarios.profiles import ProcessorProfile

_Load = Sequence[int]


class Kernels(Protocol):
    """What a pass consists of. A load of `load_size` numbers is what sequences bring to a layer, the first one tokens.

    `add` adds one sequence's to a load of others; what loads of different layers add up to is again a load.
    """

    load_size: int
    overhead_ns: int

    def add(self, load: list[int], work: Work) -> None: ...

    def layer_ns(self, load: _Load) -> int: ...

    def embedding_ns(self, num_tokens: int) -> int: ...

    def head_ns(self, num_rows: int) -> int: ...


class CostModel:
    """Virtual durations of one model on one processor.

    `weight_bits` is the law of the weights, or one number of bits for all of them (4.85 for a mixed format is fine),
    `kv_bits` that of keys and values; arithmetic runs at the profile's one effective rate whatever the bits. Raises
    ScenarioError for a table that was measured on something else.
    """

    __slots__ = ("_kernels", "_roofline", "kv_bits", "profile", "reached", "shape", "weight_bits")

    def __init__(
        self,
        *,
        profile: ProcessorProfile,
        shape: ModelShape,
        weight_bits: WeightLaw | float,
        kv_bits: KVLaw,
        table: ProfileTable | None = None,
    ) -> None:
        law = as_law(weight_bits)
        self.profile = profile
        self.shape = shape
        self.weight_bits = weight_bits
        self.kv_bits = kv_bits
        self._roofline = Roofline(profile, shape, law, kv_bits)
        self._kernels: Kernels = self._roofline
        self.reached: Mapping[str, int] = {}  # axes of a table that were left, and how far
        if table is not None:
            check_table(table, profile, shape, law.plain_bits if law.layers is None else None, _plain_bits(kv_bits))
            extrapolate = profile.profile_table is not None and profile.profile_table.extrapolate
            measured = TableKernels(table, self._roofline, extrapolate=extrapolate)
            self._kernels, self.reached = measured, measured.reached

    def forward_ns(self, works: Sequence[Work]) -> int:
        """One pass of a batch, in whole nanoseconds; 0 when no sequence has a token and a layer to run.

        Sequences that start at different layers share the weight reads of the layers they have in common. The
        embedding is a gather of the new tokens' rows; the head runs once for the batch, on one row a sequence.
        """
        kernels, add = self._kernels, self._kernels.add
        loads: dict[tuple[int, int], list[int]] = {}
        num_embedded = num_heads_rows = 0
        last_layer = self.shape.num_layers
        for work in works:
            start, stop, new = work.start, work.stop, work.new_tokens
            if start >= stop or new <= 0:
                continue
            load = loads.get((start, stop))
            if load is None:
                load = loads[start, stop] = [0] * kernels.load_size
            add(load, work)
            num_embedded += new if start == 0 else 0
            num_heads_rows += stop == last_layer and work.has_head
        if not loads:
            return 0
        layers_ns = sum((stop - start) * kernels.layer_ns(load) for start, stop, load in _segments(loads))
        return kernels.overhead_ns + kernels.embedding_ns(num_embedded) + layers_ns + kernels.head_ns(num_heads_rows)

    @property
    def roofline(self) -> Roofline:
        """The law of all that no table was given for."""
        return self._roofline

    def codec_ns(self, raw_bytes: int, encoded_bytes: int, passes_percent: int = 100) -> int:
        """Encoding or decoding a message at the cut: so many passes over its values and bytes (codecs/effort.py)."""
        return self.coding_ns([(raw_bytes + encoded_bytes, passes_percent)])

    def coding_ns(self, moved: Iterable[tuple[int, int]]) -> int:
        """One launch for messages of (raw and encoded bytes, passes in percent), bound by memory [our design]."""
        return self._roofline.coding_ns(sum(moved_bytes * percent for moved_bytes, percent in moved))


def _plain_bits(kv: KVLaw) -> float | None:
    return None if isinstance(kv, KVFormat) else kv


def _segments(loads: dict[tuple[int, int], list[int]]) -> Iterable[tuple[int, int, _Load]]:
    """The layers cut where a sequence begins or ends: (start, stop, what all sequences running there add up to)."""
    if len(loads) == 1:  # every decode step of one split, by far the most frequent call
        ((start, stop), load) = next(iter(loads.items()))
        return ((start, stop, load),)
    changes: dict[int, list[int]] = {}
    for (start, stop), load in loads.items():
        for layer, sign in ((start, 1), (stop, -1)):
            change = changes.setdefault(layer, [0] * len(load))
            for index, amount in enumerate(load):
                change[index] += sign * amount
    return _sweep(sorted(changes.items()))


def _sweep(changes: list[tuple[int, list[int]]]) -> Iterable[tuple[int, int, _Load]]:
    """The first number of a load counts tokens: without any there is no layer to run."""
    load = [0] * len(changes[0][1])
    for (start, change), (stop, _) in itertools.pairwise(changes):
        load = [amount + more for amount, more in zip(load, change, strict=True)]
        if load[0]:
            yield start, stop, load
