"""How many bytes a packed KV cache takes: the law behind `Shard.kv_bytes` and every demand counted from it.

A token's record in one layer holds, for its key and its value in each of K KV heads, D codes of Q bits, a Q-bit zero
point and a half-precision scale, the codes and zero points packed without gaps [our design: the published text counts
the codes alone, 2 T_w Q_a]:

    ceil(2 K (D + 1) Q / 8) + 2 K 16 / 8 bytes

No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.core.errors import ModelError
from testbed.models.shape import ModelShape

KV_BITS = (2, 3, 4, 5, 6, 8)
SCALE_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class KVFormat:
    """Keys and values as codes of Q ``bits``, one grid per token and head."""

    bits: int

    def check(self) -> KVFormat:
        """The format itself, or a ModelError for a width that there is none of."""
        if self.bits not in KV_BITS:
            raise ModelError("no such KV bits", value=self.bits, allowed=[str(item) for item in KV_BITS])
        return self

    def codes_bytes(self, num_kv_heads: int, head_dim: int) -> int:
        """Codes and zero points of one token's key and value in one layer."""
        return -(-2 * num_kv_heads * (head_dim + 1) * self.bits // 8)

    def token_bytes(self, shape: ModelShape) -> int:
        """One token's record in one layer: a whole number of bytes."""
        side = 2 * shape.num_kv_heads * SCALE_BYTES
        return self.codes_bytes(shape.num_kv_heads, shape.head_dim) + side

    def kv_bytes(self, shape: ModelShape, tokens: int, start: int, stop: int) -> int:
        """Keys and values of ``tokens`` tokens in layers [start, stop); an upper bound where a window slides."""
        return tokens * (stop - start) * self.token_bytes(shape)
