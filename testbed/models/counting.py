"""Counts a model's weights from its config.json and family row, equal to what the library would build."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.core.errors import ModelError
from testbed.models.family import Bias, Config, Family
from testbed.models.shape import ModelShape


def count_shape(name: str, model_type: str, family: Family, config: Config, *, file: str | None) -> ModelShape:
    """The shape of a model of one family; ModelError for a size that is missing or senseless."""
    read = _Reader(config, family, file)
    hidden, heads, vocab = read.size("hidden_size"), read.size("num_attention_heads"), read.size("vocab_size")
    kv_heads, head_dim = heads, hidden // heads
    if family.grouped_query:
        kv_heads, head_dim = read.size("num_key_value_heads", heads), read.size("head_dim", head_dim)
    intermediate = read.size("intermediate_size", 4 * hidden)
    matrix = vocab * read.size("word_embed_proj_dim", hidden)
    return ModelShape(
        name=name,
        family=model_type,
        num_layers=read.size("num_hidden_layers"),
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=intermediate,
        vocab_size=vocab,
        max_positions=read.size("max_position_embeddings", 2048),
        tied_embeddings=read.flag("tie_word_embeddings"),
        params_per_layer=hidden * (2 * heads + 2 * kv_heads) * head_dim + _mlp_matrices(family) * intermediate * hidden,
        extra_params_per_layer=_extra_params(read, query=heads * head_dim, keys=kv_heads * head_dim),
        embedding_params=matrix + _input_extras(read, family, hidden),
        head_params=matrix + _output_extras(read, family, hidden),
        head_matrix_params=matrix,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a config under a family's own key names and the library's defaults for keys left out."""

    config: Config
    family: Family
    file: str | None

    def get(self, key: str) -> object:
        own = self.family.aliases.get(key, key)
        for name in (own, key):
            if self.config.get(name) is not None:
                return self.config[name]
        return self.family.defaults.get(own)

    def size(self, key: str, default: int | None = None) -> int:
        value = self.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise ModelError(
                "bad size in the model's config", file=self.file, path=key, value=value, allowed="whole > 0"
            )
        return value

    def flag(self, key: Bias) -> bool:
        return key if isinstance(key, bool) else bool(self.get(key))


def _mlp_matrices(family: Family) -> int:
    """Gate, up and down, or up and down."""
    return 3 if family.gated_mlp else 2


def _extra_params(read: _Reader, *, query: int, keys: int) -> int:
    """Biases and norms of one decoder layer; ``query`` and ``keys`` are the widths H D and H_kv D."""
    family, hidden = read.family, read.size("hidden_size")
    intermediate = read.size("intermediate_size", 4 * hidden)
    biases = (query + 2 * keys) * read.flag(family.qkv_bias) + hidden * read.flag(family.out_bias)
    biases += ((_mlp_matrices(family) - 1) * intermediate + hidden) * read.flag(family.mlp_bias)
    head_dim = query // read.size("num_attention_heads")
    qk_norm = {"none": 0, "head": 2 * head_dim, "full": query + keys}[family.qk_norm]
    return biases + family.norms_per_layer * _norm_params(read, family, hidden) + qk_norm


def _norm_params(read: _Reader, family: Family, hidden: int) -> int:
    """Weights of one norm: a gain, for LayerNorm also a shift, nothing where the affine part is switched off."""
    if read.get("layer_norm_elementwise_affine") is False:
        return 0
    return hidden if family.norm == "rms" else 2 * hidden


def _input_extras(read: _Reader, family: Family, hidden: int) -> int:
    """Learned positions and, where token vectors are narrower than d (OPT-350M), the input projection."""
    positions = 0
    if family.position_table is not None:
        positions = (read.size("max_position_embeddings") + family.position_offset) * hidden
    return positions + _projection(read, hidden)


def _output_extras(read: _Reader, family: Family, hidden: int) -> int:
    """Final norm (absent in post-norm OPT) and the output projection."""
    no_norm = read.get("do_layer_norm_before") is False or read.get("_remove_final_layer_norm") is True
    return (0 if no_norm else _norm_params(read, family, hidden)) + _projection(read, hidden)


def _projection(read: _Reader, hidden: int) -> int:
    width = read.size("word_embed_proj_dim", hidden)
    return 0 if width == hidden else width * hidden
