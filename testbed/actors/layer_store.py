"""A host's shards are composed of parts that it has only once: another cut re-uses what is loaded and packed."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from testbed.models.parts import PART_KINDS, PartKind
from testbed.models.shard import Shard
from testbed.models.source import ModelSource
from testbed.quantization.config import WeightConfig
from testbed.quantization.targets import find_targets

Pack = Callable[[Shard, WeightConfig], None]


class LayerStore:
    """Builds shards. A part stored one way is loaded and packed once, as long as a shard that holds it is alive.

    What a method makes of a part must not depend on the shard that it is made in. `pack` stores a shard's parts, those
    that are there, as a configuration says.
    """

    def __init__(self, source: ModelSource, *, dtype: str, device: str, pack: Pack) -> None:
        self._source, self._dtype, self._device, self._pack = source, dtype, device, pack
        self._parts: dict[tuple[PartKind, object], MutableMapping[str, Any]] = {}  # by how they are stored, by name

    def shard(self, start: int, stop: int, stored: WeightConfig | None, kv_bits: int | None) -> Shard:
        """Layers [start, stop) stored as `stored` says; only what no other shard holds is read and packed."""
        homes = {kind: self._home(kind, stored) for kind in PART_KINDS}
        known = {name: part for home in homes.values() for name, part in home.items()}
        shard = Shard(
            self._source, start=start, stop=stop, dtype=self._dtype, device=self._device, kv_bits=kv_bits, absent=known
        )
        if stored is not None and any(find_targets(shard.module)):
            self._pack(shard, stored)
        shard.adopt(known)
        for part in shard.parts:
            homes[part.kind][part.name] = shard.module.get_submodule(part.path)
        return shard

    def _home(self, kind: PartKind, stored: WeightConfig | None) -> MutableMapping[str, Any]:
        return self._parts.setdefault((kind, _stored_of(kind, stored)), WeakValueDictionary())


def _stored_of(kind: PartKind, stored: WeightConfig | None) -> object:
    """What of a shard's configuration concerns a kind of part; None where it stays as it is."""
    if stored is None:
        return None
    if kind == "layer":
        changes = (stored.front, stored.back, stored.front_inputs, stored.back_inputs)
        return None if changes == (None,) * 4 else replace(stored, embedding=None, head=None)
    return stored.embedding if kind == "embedding" else stored.head
