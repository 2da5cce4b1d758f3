"""What the weights of one side take: per part the format of its matrices, at a plain width everything else.

Symbols as in `ModelShape`. The method's B_w(i; Q) counts the matrices of a layer; norms and biases, which stay at
`plain_bits`, are counted beside them. With no format this is `plain_bits` for every weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from testbed.core.units import BITS_PER_BYTE
from testbed.models.families import FAMILIES
from testbed.models.shape import ModelShape
from testbed.quantization.formats import WeightFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightLaw:
    """Bits of a side's weights. `plain_bits` may be a fraction (4.85 for a mixed format)."""

    plain_bits: float
    layers: WeightFormat | None = None
    embedding: WeightFormat | None = None
    head: WeightFormat | None = None

    def layer_bytes(self, shape: ModelShape) -> int:
        """One decoder layer, rounded up."""
        return _up(self._layers_bits(shape, 1))

    def head_bytes(self, shape: ModelShape) -> int:
        """Final norm, output projection and LM head, rounded up."""
        return _up(self._table_bits(shape, self.head, shape.head_params))

    def embedding_row_bytes(self, shape: ModelShape) -> int:
        """One token's row of the table, rounded up."""
        row = None if self.embedding is None else self.embedding.matrix_bits(1, shape.hidden_size)
        return _up(shape.hidden_size * self.plain_bits if row is None else row)

    def layers_bytes(self, shape: ModelShape, num_layers: int) -> int:
        """So many decoder layers, rounded down: what remains of a byte counts with the ends."""
        return int(self._layers_bits(shape, num_layers) // BITS_PER_BYTE)

    def shard_bytes(self, shape: ModelShape, start: int, stop: int) -> int:
        """Layers [start, stop) and their ends, rounded up; a tied matrix once where both its roles are plain."""
        if self.layers is None and self.embedding is None and self.head is None:
            return shape.weight_bytes(start, stop, self.plain_bits)
        if start == stop:
            return 0
        bits = self._layers_bits(shape, stop - start)
        bits += self._table_bits(shape, self.embedding, shape.embedding_params) if start == 0 else 0
        bits += self._table_bits(shape, self.head, shape.head_params) if stop == shape.num_layers else 0
        is_shared = shape.tied_embeddings and self.embedding is None and self.head is None
        if is_shared and start == 0 and stop == shape.num_layers:
            bits -= shape.head_matrix_params * self.plain_bits
        return _up(bits)

    def footprint_bits(self, shape: ModelShape, num_layers: int) -> float:
        """The side's share of the method's M_w: sum of B_w(i; Q) over so many layers, matrices only, in bits."""
        if self.layers is None:
            return num_layers * shape.layer_bits(self.plain_bits)
        return num_layers * packed_bits(self.layers, layer_matrices(shape))

    def _layers_bits(self, shape: ModelShape, num_layers: int) -> float:
        if self.layers is None:
            return num_layers * (shape.params_per_layer + shape.extra_params_per_layer) * self.plain_bits
        matrices = num_layers * packed_bits(self.layers, layer_matrices(shape))
        return matrices + num_layers * shape.extra_params_per_layer * self.plain_bits

    def _table_bits(self, shape: ModelShape, fmt: WeightFormat | None, params: int) -> float:
        """An end of the model: its V x d matrix in a format, what else it holds plain."""
        if fmt is None:
            return params * self.plain_bits
        columns = shape.head_matrix_params // shape.vocab_size
        rest = (params - shape.head_matrix_params) * self.plain_bits
        return fmt.matrix_bits(shape.vocab_size, columns) + rest


def as_law(weights: WeightLaw | float) -> WeightLaw:
    """A plain number of bits for every weight, or the law itself."""
    return weights if isinstance(weights, WeightLaw) else WeightLaw(plain_bits=weights)


def layer_matrices(shape: ModelShape) -> Sequence[tuple[int, int]]:
    """(rows, columns) of a decoder layer's matrices; they add up to P_i."""
    family = FAMILIES[shape.family]
    hidden, inner = shape.hidden_size, shape.intermediate_size
    query, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    qkv = [(query + 2 * keys, hidden)] if family.fused_qkv else [(query, hidden), (keys, hidden), (keys, hidden)]
    num_in = 2 if family.gated_mlp else 1
    mlp = [(num_in * inner, hidden)] if family.fused_mlp else [(inner, hidden)] * num_in
    matrices = [*qkv, (hidden, query), *mlp, (hidden, inner)]
    assert sum(rows * columns for rows, columns in matrices) == shape.params_per_layer
    return matrices


def packed_bits(fmt: WeightFormat, matrices: Iterable[tuple[int, int]]) -> int:
    """Bits of these matrices in a format."""
    return sum(fmt.matrix_bits(rows, columns) for rows, columns in matrices)


def _up(bits: float) -> int:
    return math.ceil(bits / BITS_PER_BYTE)
