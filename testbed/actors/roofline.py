"""How long the kernels of one decoder layer take by a roofline [our design].

A layer is two kernels, its matrices and its attention, one after the other; what one leaves idle the other can't use.
A kernel that moves so many bytes and does so many operations takes ``a`` where they overlap fully and

    a + b^2 / (3 a),  a and b the longer and the shorter of bytes / memory_bandwidth and flops / compute

where they overlap partially (the profile's `overlap`): nearly `a` where one is small and 4/3 `a` where they are equal,
as loads and arithmetic of a kernel's tiles hide each other the less, the more alike they are. 1/3 is the one factor
that leaves no corner there. Both laws are convex: two batches together take no longer than apart. All times are whole
nanoseconds, rounded up.

Bytes of the matrices are the layer's weights, read once for the whole batch, and each token's activations; those of
attention are K and V of each sequence. A layer takes ``kernel_overhead + matrices + attention + all-reduces``, or
`host_time` where the host takes longer to launch all that.

Tensor parallelism: n processors hold 1/n of each layer's heads, MLP columns and vocabulary and run at the same time,
each by the law above; K and V heads that are fewer than n are held more than once. After attention and after the MLP
they add up the hidden states by an all-reduce over a ring, which takes
``interconnect_latency + 2 (n - 1) / n * bytes / interconnect_bandwidth`` (Patarasuk and Yuan 2009 for the bytes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from testbed.actors.kv import KVLaw, kv_bytes
from testbed.actors.weights import WeightLaw
from testbed.core.errors import ScenarioError
from testbed.core.units import NS_PER_S
from testbed.core.work import Work
from testbed.models.shape import ModelShape
from testbed.scenarios.profiles import ProcessorProfile, ServerProfile

ACTIVATION_BYTES = 2  # a half-precision value, on every processor [our design]
ALL_REDUCES = 2  # in a layer


class RooflineConstants(NamedTuple):
    """What a roofline adds up: rates a second; bytes and operations of a layer, token, position, pair or row."""

    overhead_ns: int
    host_ns: int
    bandwidth: int
    compute: int
    overlaps_fully: int  # 1 or 0
    layer_bytes: int
    token_bytes: int
    token_flops: int
    position_bytes: int
    pair_flops: int
    all_reduce_ns: int  # before the first byte
    ring_bytes: int  # of a token
    ring_bandwidth: int
    embedding_bytes: int
    head_bytes: int
    head_row_bytes: int
    head_row_flops: int


class Roofline:
    """One model's kernels on one processor, or on several that share every layer."""

    load_size = 3
    __slots__ = (
        "_bandwidth",
        "_compute",
        "_embedding_row_bytes",
        "_flops_per_pair",
        "_flops_per_token",
        "_head_bytes",
        "_head_flops_per_row",
        "_head_row_bytes",
        "_hidden_bytes",
        "_host_ns",
        "_kv_bytes_per_token",
        "_latency_ns",
        "_layer_bytes",
        "_num_processors",
        "_overlaps_fully",
        "_ring_bandwidth",
        "_token_bytes",
        "overhead_ns",
    )

    def __init__(self, profile: ProcessorProfile, shape: ModelShape, weights: WeightLaw, kv: KVLaw) -> None:
        self.overhead_ns = profile.kernel_overhead
        self._host_ns = profile.host_time
        self._bandwidth = max(1, round(profile.memory_bandwidth))
        self._compute = max(1, round(profile.compute))
        self._overlaps_fully = profile.overlap == "full"
        self._num_processors, self._latency_ns, self._ring_bandwidth = _ring(profile)
        self._embedding_row_bytes = weights.embedding_row_bytes(shape) + shape.hidden_size * ACTIVATION_BYTES
        self._hidden_bytes = shape.hidden_size * ACTIVATION_BYTES
        own = sliced(shape, self._num_processors)
        self._layer_bytes = weights.layer_bytes(own)
        self._kv_bytes_per_token = kv_bytes(own, 1, 0, 1, kv)
        self._token_bytes = _activation_bytes(own)
        self._flops_per_token = 2 * own.params_per_layer
        self._flops_per_pair = 4 * own.num_heads * own.head_dim
        self._head_bytes = weights.head_bytes(own)
        self._head_row_bytes = (own.hidden_size + own.vocab_size) * ACTIVATION_BYTES
        self._head_flops_per_row = 2 * own.head_params

    @property
    def constants(self) -> RooflineConstants:
        """All that the laws below need, for an engine that has them compiled."""
        return RooflineConstants(
            overhead_ns=self.overhead_ns,
            host_ns=self._host_ns,
            bandwidth=self._bandwidth,
            compute=self._compute,
            overlaps_fully=int(self._overlaps_fully),
            layer_bytes=self._layer_bytes,
            token_bytes=self._token_bytes,
            token_flops=self._flops_per_token,
            position_bytes=self._kv_bytes_per_token,
            pair_flops=self._flops_per_pair,
            all_reduce_ns=self._latency_ns,
            ring_bytes=2 * (self._num_processors - 1) * self._hidden_bytes,
            ring_bandwidth=self._num_processors * self._ring_bandwidth,
            embedding_bytes=self._embedding_row_bytes,
            head_bytes=self._head_bytes,
            head_row_bytes=self._head_row_bytes,
            head_row_flops=self._head_flops_per_row,
        )

    @staticmethod
    def add(load: list[int], work: Work) -> None:
        """New tokens, KV positions moved, and pairs of a new token and a position it attends to."""
        new, past = work.new_tokens, work.past_tokens
        load[0] += new
        load[1] += past + 2 * new
        load[2] += new * past + new * (new + 1) // 2

    def layer_ns(self, load: Sequence[int]) -> int:
        """One layer with all that sequences bring to it, as `add` counts it."""
        tokens, positions, pairs = load
        kernels_ns = self.matrices_ns(tokens) + self.attention_ns(positions, pairs)
        return max(self._host_ns, self.overhead_ns + kernels_ns + ALL_REDUCES * self.all_reduce_ns(tokens))

    def matrices_ns(self, tokens: int) -> int:
        """The matrices of one layer and what lies between them, without attention."""
        return self._kernel_ns(self._layer_bytes + tokens * self._token_bytes, tokens * self._flops_per_token)

    def attention_ns(self, positions: int, pairs: int) -> int:
        """One layer's attention over keys and values that are moved so often."""
        return self._kernel_ns(positions * self._kv_bytes_per_token, pairs * self._flops_per_pair)

    def all_reduce_ns(self, tokens: int) -> int:
        """Adding up so many hidden states over all processors; no time where there is one."""
        if self._num_processors == 1:
            return 0
        hops = 2 * (self._num_processors - 1)
        return self._latency_ns + _ceil_ns(
            hops * tokens * self._hidden_bytes, self._num_processors * self._ring_bandwidth
        )

    def embedding_ns(self, num_tokens: int) -> int:
        """A gather of the new tokens' rows."""
        return _ceil_ns(num_tokens * self._embedding_row_bytes, self._bandwidth)

    def head_ns(self, num_rows: int) -> int:
        """Final norm and LM head, once for the batch."""
        if not num_rows:
            return 0
        return self._kernel_ns(self._head_bytes + num_rows * self._head_row_bytes, num_rows * self._head_flops_per_row)

    def coding_ns(self, percent_bytes: int) -> int:
        """One launch that moves this many hundredths of a byte."""
        return self.overhead_ns + _ceil_ns(percent_bytes, 100 * self._bandwidth)

    def _kernel_ns(self, moved_bytes: int, flops: int) -> int:
        moving, computing = _ceil_ns(moved_bytes, self._bandwidth), _ceil_ns(flops, self._compute)
        longer, shorter = (moving, computing) if moving > computing else (computing, moving)
        if self._overlaps_fully or not shorter:
            return longer
        return longer - (-shorter * shorter // (3 * longer))


def sliced(shape: ModelShape, parallel: int) -> ModelShape:
    """What one of `parallel` processors holds of every layer, of vocabulary and head; norms it holds whole."""
    if parallel == 1:
        return shape
    kv_heads = -(-shape.num_kv_heads // parallel)
    doubled = 2 * shape.hidden_size * shape.head_dim * (kv_heads * parallel - shape.num_kv_heads)
    vocab = -(-shape.vocab_size // parallel)
    matrix = vocab * (shape.head_matrix_params // shape.vocab_size)
    return replace(
        shape,
        num_heads=shape.num_heads // parallel,
        num_kv_heads=kv_heads,
        intermediate_size=shape.intermediate_size // parallel,
        params_per_layer=(shape.params_per_layer + doubled) // parallel,
        vocab_size=vocab,
        head_params=shape.head_params - shape.head_matrix_params + matrix,
        head_matrix_params=matrix,
    )


def check_parallel(profile: ServerProfile, shape: ModelShape) -> None:
    """Raise ScenarioError for a model whose heads and MLP columns can't be dealt out evenly."""
    parallel, heads, kv_heads, columns = (
        profile.tensor_parallel, shape.num_heads, shape.num_kv_heads, shape.intermediate_size
    )  # fmt: skip
    even = [n for n in range(1, 65) if heads % n == columns % n == 0 and (kv_heads % n == 0 or n % kv_heads == 0)]
    if parallel not in even:
        sizes = f"{heads} heads, {kv_heads} KV heads and {columns} MLP columns"
        raise ScenarioError(
            f"{shape.name} has {sizes}, which so many processors can't share evenly",
            path="tensor_parallel", value=parallel, allowed=", ".join(map(str, even)),
        )  # fmt: skip


def _ring(profile: ProcessorProfile) -> tuple[int, int, int]:
    """How many processors there are, an all-reduce's latency and the bandwidth of the ring."""
    if not isinstance(profile, ServerProfile) or profile.tensor_parallel == 1:
        return 1, 0, 1
    assert profile.interconnect_bandwidth is not None, "checked when the profile was read"
    return profile.tensor_parallel, profile.interconnect_latency, max(1, round(profile.interconnect_bandwidth))


def _activation_bytes(shape: ModelShape) -> int:
    """Bytes of activations one layer writes and reads again for one token.

    The residual stream around both blocks (4 d), queries, keys, values and the attention's output, and three MLP rows.
    """
    attention = (2 * shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim
    values = 4 * shape.hidden_size + attention + 3 * shape.intermediate_size
    return 2 * values * ACTIVATION_BYTES


def _ceil_ns(amount: int, rate_per_s: int) -> int:
    return -(-amount * NS_PER_S // rate_per_s)
