"""What a device and a server must hold: the demand that decides between running and out of memory [our design].

    M_edge = M_fixed + sum_{i<=l} B_w(i) + KV_edge(W, l) + M_work

M_fixed is the embedding, with norm and head when l = L; M_work the activations of the layer at work. What system,
runtime and codec buffers take is the profile's `reserved_memory`. At l = 0 the device holds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from testbed.actors.kv import KVLaw, kv_bytes
from testbed.actors.roofline import ACTIVATION_BYTES
from testbed.actors.weights import WeightLaw, as_law
from testbed.models.shape import ModelShape
from testbed.scenarios.profiles import DeviceProfile, ServerProfile

PREFILL_CHUNK_TOKENS = 512  # a longer prompt passes through a layer in pieces of this many tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDemand:
    """Bytes a device needs for one request; `total_bytes` is compared with what the profile leaves free."""

    fixed_bytes: int  # embedding, and norm and head on an edge-only device
    weights_bytes: int  # decoder layers
    kv_bytes: int
    work_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.fixed_bytes + self.weights_bytes + self.kv_bytes + self.work_bytes

    @property
    def resident_bytes(self) -> int:
        """The share that all requests of the device have in common."""
        return self.fixed_bytes + self.weights_bytes


NOTHING = MemoryDemand(fixed_bytes=0, weights_bytes=0, kv_bytes=0, work_bytes=0)


def edge_demand(
    shape: ModelShape, split: int, tokens: int, weight_bits: WeightLaw | float, kv_bits: KVLaw
) -> MemoryDemand:
    """M_edge of layers [0, split) for a sequence of at most `tokens` tokens, prompt and output together.

    `weight_bits` is the law of the front's weights, or one number of bits for all of them, `kv_bits` that of its keys
    and values. Raises ModelError for a split beyond L.
    """
    shape.check_split(split)
    if split == 0:
        return NOTHING
    law = as_law(weight_bits)
    all_weights, layers = law.shard_bytes(shape, 0, split), law.layers_bytes(shape, split)
    return MemoryDemand(
        fixed_bytes=all_weights - layers,
        weights_bytes=layers,
        kv_bytes=kv_bytes(shape, tokens, 0, split, kv_bits),
        work_bytes=_work_bytes(shape, tokens),
    )


def server_weights_bytes(shape: ModelShape, splits: Iterable[int], weight_bits: WeightLaw | float) -> int:
    """Weights of the back shards that serve these splits: one copy of layers [min split, L) and the head.

    Splits of L need no server.
    """
    served = [shape.check_split(split) for split in splits]
    first = min(served, default=shape.num_layers)
    return as_law(weight_bits).shard_bytes(shape, first, shape.num_layers)


def server_kv_bytes(shape: ModelShape, split: int, tokens: int, kv_bits: KVLaw) -> int:
    """KV cache that the server holds for one sequence of `tokens` tokens: layers [split, L)."""
    return kv_bytes(shape, tokens, shape.check_split(split), shape.num_layers, kv_bits)


def free_bytes(profile: DeviceProfile | ServerProfile) -> int:
    """Memory that weights, KV and activations may fill, of all its processors together."""
    return profile.num_processors * max(0, profile.memory - profile.reserved_memory)


def largest_split(
    profile: DeviceProfile, shape: ModelShape, tokens: int, weight_bits: WeightLaw | float, kv_bits: KVLaw
) -> int:
    """The largest l whose front the device holds for `tokens` tokens; 0 when not even one layer fits."""
    limit = free_bytes(profile)
    return next(
        split
        for split in range(shape.num_layers, -1, -1)
        if edge_demand(shape, split, tokens, weight_bits, kv_bits).total_bytes <= limit
    )


def _work_bytes(shape: ModelShape, tokens: int) -> int:
    """Activations alive at the widest point of one layer: residual stream in and out, and the wider block's rows."""
    attention = (2 * shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim
    values = 2 * shape.hidden_size + max(attention, 3 * shape.intermediate_size)
    return min(tokens, PREFILL_CHUNK_TOKENS) * values * ACTIVATION_BYTES
