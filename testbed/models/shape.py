"""Byte and FLOP laws of a decoder-only language model that is cut between two layers.

Symbols (the method's): L ``num_layers``, d ``hidden_size``, H ``num_heads``, H_kv ``num_kv_heads``, D ``head_dim``,
l the split layer. A cut at l makes a front [0, l) with the embedding and a back [l, L) with the final norm and the
LM head. l = 0 is cloud-only: the front is empty and the back [0, L) takes token ids. l = L is edge-only.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.core.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The sizes of one model, enough for every law below without loading a single weight.

    ``params_per_layer`` is P_i, the projection matrices of one decoder layer (what is multiplied with, and what weight
    quantisation packs); ``extra_params_per_layer`` its norms and biases.
    ``embedding_params`` counts the token table, learned position table and input projection (what only layer 0's
    shard holds); ``head_params`` counts final norm, output projection and LM head matrix, as a back shard holds them
    (a tied matrix is loaded a second time there). ``head_matrix_params`` is the LM head matrix alone.
    """

    name: str
    family: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    tied_embeddings: bool
    params_per_layer: int
    extra_params_per_layer: int
    embedding_params: int
    head_params: int
    head_matrix_params: int

    @property
    def total_params(self) -> int:
        """Weights of the whole model, a tied matrix counted once."""
        return self.params(0, self.num_layers)

    def params(self, start: int, stop: int) -> int:
        """Weights that a shard of layers [start, stop) holds; an empty range holds none.

        Only the whole model [0, L) shares a tied matrix between embedding and head.
        """
        self._check_range(start, stop)
        if start == stop:
            return 0
        layers = (stop - start) * (self.params_per_layer + self.extra_params_per_layer)
        ends = self.embedding_params * (start == 0) + self.head_params * (stop == self.num_layers)
        whole = start == 0 and stop == self.num_layers
        return layers + ends - (self.head_matrix_params if whole and self.tied_embeddings else 0)

    def weight_bytes(self, start: int, stop: int, bits: float) -> int:
        """Bytes of the weights of layers [start, stop) and their ends at ``bits`` a weight, rounded up."""
        return _bytes(self.params(start, stop) * bits)

    def layer_bits(self, bits: float, group_size: int | None = None) -> float:
        """B_w(i; Q) = P_i Q bits of one layer; with group size g, P Q + (P/g)(16 + Q) for scale and zero point."""
        side = 0.0 if group_size is None else self.params_per_layer / group_size * (16 + bits)
        return self.params_per_layer * bits + side

    def kv_bytes(self, tokens: int, start: int, stop: int, bits: float) -> int:
        """2 T_w Q / 8 summed over layers [start, stop), with T_w = tokens H_kv D.

        An upper bound for sliding-window layers, which keep no more than the window.
        """
        self._check_range(start, stop)
        return _bytes(2 * self._kv_elements(tokens) * (stop - start) * bits)

    def hidden_bytes(self, tokens: int, bits: float) -> int:
        """Bytes of ``tokens`` hidden states of d values at the cut."""
        return _bytes(tokens * self.hidden_size * bits)

    def flops(self, new_tokens: int, past_tokens: int, start: int, stop: int, logits_rows: int = 1) -> int:
        """Floating-point operations to run ``new_tokens`` after ``past_tokens`` through layers [start, stop).

        2 per matrix weight and token, plus 4 H D per layer for each pair of a new token and a position it attends to
        (itself and all before it), plus the LM head on ``logits_rows`` rows when the range ends at L.
        """
        self._check_range(start, stop)
        pairs = new_tokens * past_tokens + new_tokens * (new_tokens + 1) // 2
        linear = 2 * self.params_per_layer * new_tokens
        attention = 4 * self.num_heads * self.head_dim * pairs
        has_head = stop == self.num_layers and start < stop
        return (stop - start) * (linear + attention) + (2 * self.head_params * logits_rows if has_head else 0)

    def footprint_bits(
        self, split: int, front_bits: float, back_bits: float, *, group_size: int | None = None
    ) -> float:
        """M_w(l, Q_w) = sum_{i<=l} B_w(i; Q_w1) + sum_{j>l} B_w(j; Q_w2): both sides' layers, in bits."""
        self._check_range(0, split)
        front = split * self.layer_bits(front_bits, group_size)
        return front + (self.num_layers - split) * self.layer_bits(back_bits, group_size)

    def state_bits(self, tokens: int, split: int, front_bits: float, back_bits: float) -> float:
        """B_kv(w, l; Q_a): execution state at the cut in bits.

        Front layers hold w tokens of K and V, back layers w - 1, plus one hidden state of d values at the front's bits.
        """
        self._check_range(0, split)
        front = 2 * split * self._kv_elements(tokens) * front_bits
        back = 2 * (self.num_layers - split) * self._kv_elements(tokens - 1) * back_bits
        return front + back + self.hidden_size * front_bits

    def check_split(self, split: int) -> int:
        """The split layer itself, or a ModelError that says which layers exist."""
        if not 0 <= split <= self.num_layers:
            raise ModelError(
                f"split layer outside model {self.name}", value=split, allowed=f"0 (cloud-only) to {self.num_layers}"
            )
        return split

    def _kv_elements(self, tokens: int) -> int:
        """T_w = w H_kv D: elements of K, or of V, of one layer for w tokens."""
        return tokens * self.num_kv_heads * self.head_dim

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.num_layers:
            raise ModelError(
                f"layer range outside model {self.name}",
                value=f"[{start}, {stop})",
                allowed=f"0 <= start <= stop <= {self.num_layers}",
            )


def _bytes(bits: float) -> int:
    """Whole bytes that hold ``bits``."""
    return -int(-bits // 8)
