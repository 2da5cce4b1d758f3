"""How long a processor takes: a roofline over the layers a batch runs through [our design].

One decoder layer takes ``kernel_overhead + max(bytes / memory_bandwidth, flops / compute)``. Its bytes are its weights,
read once for the whole batch, plus each sequence's KV cache and activations; decode steps are therefore bound by
memory and long prefills by arithmetic. All sums are exact integers and every layer is rounded up to a whole
nanosecond, so the order of a batch can't change its duration, more work never takes less, and a batch takes at least as
long as its largest part and at most as long as its parts one after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from testbed.actors.kv import KVLaw, kv_bytes
from testbed.actors.weights import WeightLaw, as_law
from testbed.core.units import NS_PER_S
from testbed.core.work import Work
from testbed.models.shape import ModelShape
from testbed.scenarios.profiles import ProcessorProfile

ACTIVATION_BYTES = 2  # a half-precision value, on every processor [our design]

_Load = tuple[int, int, int]  # new tokens, KV positions moved, pairs of a new token and a position it attends to


class CostModel:
    """Virtual durations of one model on one processor.

    `weight_bits` is the law of the weights, or one number of bits for all of them (4.85 for a mixed format is fine),
    `kv_bits` that of keys and values; arithmetic runs at the profile's one effective rate whatever the bits.
    """

    __slots__ = (
        "_bandwidth",
        "_compute",
        "_embedding_row_bytes",
        "_flops_per_pair",
        "_flops_per_token",
        "_head_bytes",
        "_head_flops_per_row",
        "_kv_bytes_per_token",
        "_layer_bytes",
        "_overhead_ns",
        "_token_bytes",
        "kv_bits",
        "profile",
        "shape",
        "weight_bits",
    )

    def __init__(
        self, *, profile: ProcessorProfile, shape: ModelShape, weight_bits: WeightLaw | float, kv_bits: KVLaw
    ) -> None:
        law = as_law(weight_bits)
        self.profile = profile
        self.shape = shape
        self.weight_bits = weight_bits
        self.kv_bits = kv_bits
        self._bandwidth = max(1, round(profile.memory_bandwidth))
        self._compute = max(1, round(profile.compute))
        self._overhead_ns = profile.kernel_overhead
        self._layer_bytes = law.layer_bytes(shape)
        self._kv_bytes_per_token = kv_bytes(shape, 1, 0, 1, kv_bits)
        self._token_bytes = _activation_bytes(shape)
        self._flops_per_token = 2 * shape.params_per_layer
        self._flops_per_pair = 4 * shape.num_heads * shape.head_dim
        self._embedding_row_bytes = law.embedding_row_bytes(shape) + shape.hidden_size * ACTIVATION_BYTES
        self._head_bytes = law.head_bytes(shape)
        self._head_flops_per_row = 2 * shape.head_params

    def forward_ns(self, works: Sequence[Work]) -> int:
        """One pass of a batch, in whole nanoseconds; 0 when no sequence has a token and a layer to run.

        Sequences that start at different layers share the weight reads of the layers they have in common. The
        embedding is a gather of the new tokens' rows; the head runs once for the batch, on one row a sequence.
        """
        loads: dict[tuple[int, int], _Load] = {}
        num_embedded = num_heads_rows = 0
        last_layer = self.shape.num_layers
        for work in works:
            start, stop, new, past = work.start, work.stop, work.new_tokens, work.past_tokens
            if start >= stop or new <= 0:
                continue
            tokens, positions, pairs = loads.get((start, stop), (0, 0, 0))
            reach = new * past + new * (new + 1) // 2
            loads[start, stop] = (tokens + new, positions + past + 2 * new, pairs + reach)
            num_embedded += new if start == 0 else 0
            num_heads_rows += stop == last_layer and work.has_head
        if not loads:
            return 0
        layers_ns = sum((stop - start) * self._layer_ns(load) for start, stop, load in _segments(loads))
        return self._overhead_ns + self._embedding_ns(num_embedded) + layers_ns + self._head_ns(num_heads_rows)

    def codec_ns(self, raw_bytes: int, encoded_bytes: int, passes_percent: int = 100) -> int:
        """Encoding or decoding a message at the cut: so many passes over its values and bytes (codecs/effort.py)."""
        return self.coding_ns([(raw_bytes + encoded_bytes, passes_percent)])

    def coding_ns(self, moved: Iterable[tuple[int, int]]) -> int:
        """One launch for messages of (raw and encoded bytes, passes in percent), bound by memory [our design]."""
        work = sum(moved_bytes * percent for moved_bytes, percent in moved)
        return self._overhead_ns + _ceil_ns(work, 100 * self._bandwidth)

    def _layer_ns(self, load: _Load) -> int:
        tokens, positions, pairs = load
        moved = self._layer_bytes + positions * self._kv_bytes_per_token + tokens * self._token_bytes
        flops = tokens * self._flops_per_token + pairs * self._flops_per_pair
        return self._overhead_ns + self._roofline_ns(moved, flops)

    def _embedding_ns(self, num_tokens: int) -> int:
        return _ceil_ns(num_tokens * self._embedding_row_bytes, self._bandwidth)

    def _head_ns(self, num_rows: int) -> int:
        if not num_rows:
            return 0
        moved = self._head_bytes + num_rows * (self.shape.hidden_size + self.shape.vocab_size) * ACTIVATION_BYTES
        return self._roofline_ns(moved, num_rows * self._head_flops_per_row)

    def _roofline_ns(self, moved_bytes: int, flops: int) -> int:
        return max(_ceil_ns(moved_bytes, self._bandwidth), _ceil_ns(flops, self._compute))


def _segments(loads: dict[tuple[int, int], _Load]) -> Iterable[tuple[int, int, _Load]]:
    """The layers cut where a sequence begins or ends: (start, stop, what all sequences running there add up to)."""
    if len(loads) == 1:  # every decode step of one split, by far the most frequent call
        ((start, stop), load) = next(iter(loads.items()))
        return ((start, stop, load),)
    changes: dict[int, list[int]] = {}
    for (start, stop), load in loads.items():
        for layer, sign in ((start, 1), (stop, -1)):
            change = changes.setdefault(layer, [0, 0, 0])
            for index, amount in enumerate(load):
                change[index] += sign * amount
    return _sweep(sorted(changes.items()))


def _sweep(changes: list[tuple[int, list[int]]]) -> Iterable[tuple[int, int, _Load]]:
    tokens = positions = pairs = 0
    for (start, change), (stop, _) in itertools.pairwise(changes):
        tokens, positions, pairs = tokens + change[0], positions + change[1], pairs + change[2]
        if tokens:
            yield start, stop, (tokens, positions, pairs)


def _activation_bytes(shape: ModelShape) -> int:
    """Bytes of activations one layer writes and reads again for one token.

    The residual stream around both blocks (4 d), queries, keys, values and the attention's output, and three MLP rows.
    """
    attention = (2 * shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim
    values = 4 * shape.hidden_size + attention + 3 * shape.intermediate_size
    return 2 * values * ACTIVATION_BYTES


def _ceil_ns(amount: int, rate_per_s: int) -> int:
    return -(-amount * NS_PER_S // rate_per_s)
