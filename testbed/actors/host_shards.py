"""The shards of a host: which there are, how each is stored, and what they hold.

A shard that a device runs is stored as the front's weights and KV caches are, one that a server runs as the back's; the
reference that answers are held against never is quantised.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from testbed.actors.calls import HostSpec
from testbed.actors.layer_store import LayerStore
from testbed.models.shard import Shard, ShardInput
from testbed.quantization.apply import needs_blocks, needs_text, quantise_module
from testbed.quantization.blocks import Blocks, collect_blocks
from testbed.quantization.calibrate import Statistics, collect
from testbed.quantization.config import WeightConfig
from testbed.quantization.saved import load_quantised
from testbed.quantization.targets import find_blocks

Side = Literal["front", "back", "reference"]  # whose precision a shard has
Key = tuple[int, int, WeightConfig | None, int | None]  # layers [start, stop), how weights and KV are stored
_CALIBRATION = -1  # a session of no request


class HostShards:
    """Loads shards at their first use, packs them where the spec says so, and keeps them."""

    def __init__(self, spec: HostSpec, device: str) -> None:
        self._spec = spec
        self._shards: dict[Key, Shard] = {}
        self._layers = LayerStore(spec.source, dtype=spec.dtype, device=device, pack=self._pack)
        self._statistics: Statistics | None = None

    def __iter__(self) -> Iterator[Shard]:
        return iter(self._shards.values())

    @property
    def num_layers(self) -> int:
        """L of the whole model."""
        return self._spec.source.shape.num_layers

    def front(self, split: int, *sessions: int) -> Shard:
        """Layers [0, split) as devices have them; sessions that are new are opened."""
        return self._shard("front", 0, split, sessions)

    def back(self, split: int, *sessions: int) -> Shard:
        """Layers [split, L) as servers have them; sessions that are new are opened."""
        return self._shard("back", split, self.num_layers, sessions)

    def reference(self, session: int) -> Shard:
        """The unsplit model at full precision, with this session open."""
        return self._shard("reference", 0, self.num_layers, [session])

    def calibration_states(self, split: int) -> list[Any]:
        """Hidden states [n, d] float32 of each calibration sequence behind the first `split` layers, as on devices."""
        return self._read_text(self.front(split))

    def resident_bytes(self) -> dict[tuple[int, int, WeightConfig | None], int]:
        """Bytes of weights held, by shard (start, stop, how they are stored)."""
        return {key[:3]: shard.resident_bytes() for key, shard in self._shards.items()}

    def weight_bytes(self) -> int:
        """Bytes of weights and buffers of all shards, what they share counted once."""
        tensors: dict[int, int] = {}
        for shard in self:
            tensors |= shard.resident_tensors()
        return sum(tensors.values())

    def kv_bytes(self) -> dict[tuple[int, int], int]:
        """Bytes of keys and values that open sessions hold, by layers [start, stop)."""
        held: dict[tuple[int, int], int] = {}
        for (start, stop, *_), shard in self._shards.items():
            held[start, stop] = held.get((start, stop), 0) + shard.kv_bytes()
        return held

    def _shard(self, side: Side, start: int, stop: int, sessions: tuple[int, ...] | list[int]) -> Shard:
        key = (start, stop, self._stored(side, start, stop), self._kv_bits(side))
        shard = self._shards.get(key)
        if shard is None:
            shard = self._shards[key] = self._layers.shard(*key)
        for session in sessions:
            if session not in shard.sessions:
                shard.open(session)
        return shard

    def _stored(self, side: Side, start: int, stop: int) -> WeightConfig | None:
        """How a shard's weights are stored and its inputs rounded, with the change point at its own cut.

        None where everything stays as it is.
        """
        weights = self._spec.weights
        if weights is None or side == "reference":
            return None
        is_front = side == "front"
        layers = weights.front if is_front else weights.back
        inputs = weights.front_inputs if is_front else weights.back_inputs
        embedding = weights.embedding if start == 0 else None
        head = weights.head if stop == self.num_layers else None
        if layers is None and inputs is None and embedding is None and head is None:
            return None
        own = replace(weights, split=0, front=None, front_inputs=None, embedding=embedding, head=head)
        return replace(own, back=layers, back_inputs=inputs)

    def _kv_bits(self, side: Side) -> int | None:
        if side == "reference":
            return None
        return self._spec.front_kv_bits if side == "front" else self._spec.back_kv_bits

    def _pack(self, shard: Shard, stored: WeightConfig) -> None:
        if self._spec.saved is not None:
            load_quantised(shard.module, self._spec.saved, first_layer=shard.start)
            return
        seen = self._calibrated() if needs_text(stored) else None
        blocks = self._blocks(shard) if needs_blocks(stored) else None
        quantise_module(shard.module, stored, first_layer=shard.start, statistics=seen, blocks=blocks)

    def _calibrated(self) -> Statistics:
        """What the unsplit model's linear layers are fed when it reads the calibration text."""
        if self._statistics is None:
            shard = self._layers.shard(0, self.num_layers, None, None)
            self._statistics = collect(shard.module, lambda: self._read_text(shard))
        return self._statistics

    def _blocks(self, shard: Shard) -> Blocks:
        """What enters the layers to be packed in the unsplit model; not kept, since it is all their hidden states."""
        layers = {block.layer for block in find_blocks(shard.module, shard.start)}
        whole = self._layers.shard(0, self.num_layers, None, None)
        return collect_blocks(whole.module, lambda: self._read_text(whole), layers=layers) if layers else {}

    def _read_text(self, shard: Shard) -> list[Any]:
        """What the shard makes of every calibration sequence, each alone."""
        found = []
        for tokens in self._spec.calibration:
            shard.open(_CALIBRATION)
            found += shard.forward([ShardInput(session=_CALIBRATION, tokens=tokens)], batched=False)
            shard.close(_CALIBRATION)
        return found
