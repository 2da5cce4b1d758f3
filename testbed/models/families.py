"""The supported model families: one declarative row each, keyed by Hugging Face ``model_type``.

A row says where a checkpoint keeps the parts that a cut must tell apart and what its layers consist of, so that
weights can be counted from config.json alone. Adding a family means adding a row; the equivalence tests then run it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from testbed.core.errors import ModelError, nearest_name
from testbed.models.shape import ModelShape

Config = Mapping[str, Any]
Bias = bool | str
"""A fixed choice, or the config key that decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Where one family keeps its parts (module and checkpoint paths) and what one decoder layer holds.

    ``decoder``, ``layers``: path of the decoder stack and of the layer list in it. ``front_parts``: children of the
    decoder that only the first layer's shard holds; ``position_table`` the learned positions among them, added by the
    decoder itself. ``back_parts``: children that only the last layer's shard holds. ``head``: the LM head's key.
    """

    label: str
    decoder: str = "model"
    layers: str = "layers"
    token_table: str = "embed_tokens"
    front_parts: tuple[str, ...] = ("embed_tokens",)
    position_table: str | None = None
    back_parts: tuple[str, ...] = ("norm",)
    head: str = "lm_head.weight"
    gated_mlp: bool = True
    norm: Literal["rms", "layer"] = "rms"
    norms_per_layer: int = 2
    qk_norm: Literal["none", "head", "full"] = "none"
    qkv_bias: Bias = False
    out_bias: Bias = False
    mlp_bias: Bias = False
    position_offset: int = 0
    attention: str = "sdpa"
    defaults: Mapping[str, object] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    unsupported: Mapping[str, str] = field(default_factory=dict)
    """Config keys that, when true, change the computation beyond what the shards cover, and why."""


_GEMMA_DEFAULTS = {"tie_word_embeddings": True, "head_dim": 256, "max_position_embeddings": 8192}

FAMILIES: Mapping[str, Family] = {
    "llama": Family(label="Llama", qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias"),
    "mistral": Family(label="Mistral", defaults={"num_key_value_heads": 8, "max_position_embeddings": 131072}),
    "qwen2": Family(
        label="Qwen2", qkv_bias=True, defaults={"num_key_value_heads": 32, "max_position_embeddings": 32768}
    ),
    "qwen3": Family(
        label="Qwen3",
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        qk_norm="head",
        defaults={"num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32768},
    ),
    "phi3": Family(label="Phi-3", defaults={"max_position_embeddings": 4096}),
    "gemma": Family(
        label="Gemma",
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        defaults=_GEMMA_DEFAULTS | {"num_key_value_heads": 16},
    ),
    "gemma2": Family(
        label="Gemma 2",
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        norms_per_layer=4,
        attention="eager",  # soft-capped attention scores have no sdpa path
        defaults=_GEMMA_DEFAULTS | {"num_key_value_heads": 4},
    ),
    "gemma3_text": Family(
        label="Gemma 3 (text)",
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        norms_per_layer=4,
        qk_norm="head",
        defaults=_GEMMA_DEFAULTS | {"num_key_value_heads": 4, "max_position_embeddings": 131072, "vocab_size": 262208},
        unsupported={"use_bidirectional_attention": "its attention is not causal"},
    ),
    "gpt2": Family(
        label="GPT-2",
        decoder="transformer",
        layers="h",
        token_table="wte",
        front_parts=("wte", "wpe"),
        position_table="wpe",
        back_parts=("ln_f",),
        gated_mlp=False,
        norm="layer",
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        defaults={"tie_word_embeddings": True, "n_positions": 1024, "n_layer": 12, "n_head": 12, "n_embd": 768},
        aliases={
            "num_hidden_layers": "n_layer",
            "hidden_size": "n_embd",
            "num_attention_heads": "n_head",
            "intermediate_size": "n_inner",
            "max_position_embeddings": "n_positions",
        },
        unsupported={
            "scale_attn_by_inverse_layer_idx": "its attention scale depends on the layer's place in the whole model",
            "add_cross_attention": "cross-attention needs an encoder",
        },
    ),
    "opt": Family(
        label="OPT",
        decoder="model.decoder",
        front_parts=("embed_tokens", "embed_positions", "project_in"),
        position_table="embed_positions",
        back_parts=("final_layer_norm", "project_out"),
        gated_mlp=False,
        norm="layer",
        qkv_bias="enable_bias",
        out_bias="enable_bias",
        mlp_bias="enable_bias",
        position_offset=2,
        defaults={
            "tie_word_embeddings": True,
            "enable_bias": True,
            "do_layer_norm_before": True,
            "max_position_embeddings": 2048,
        },
        aliases={"intermediate_size": "ffn_dim"},
    ),
    "gpt_neox": Family(
        label="GPT-NeoX",
        decoder="gpt_neox",
        token_table="embed_in",
        front_parts=("embed_in",),
        back_parts=("final_layer_norm",),
        head="embed_out.weight",
        gated_mlp=False,
        norm="layer",
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        mlp_bias=True,
        defaults={"attention_bias": True},
    ),
    "olmo2": Family(label="OLMo2", qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="full"),
    "smollm3": Family(
        label="SmolLM3",
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        mlp_bias="mlp_bias",
        defaults={"tie_word_embeddings": True, "num_key_value_heads": 4, "max_position_embeddings": 32768},
    ),
    "granite": Family(label="Granite", qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias"),
}

_EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts")


def family_of(config: Config, *, file: str | None = None) -> tuple[str, Family]:
    """The ``model_type`` and row of a config, or a ModelError naming what is supported and the nearest name."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ModelError(
            "unsupported model family (model_type)",
            file=file,
            value=model_type,
            allowed=sorted(FAMILIES),
            nearest=nearest_name(str(model_type), FAMILIES),
        )
    family = FAMILIES[model_type]
    _check_variant(config, family, file)
    return model_type, family


def shape_of(name: str, config: Config, *, file: str | None = None) -> ModelShape:
    """Sizes and weight counts of a model from its config alone; equal to what the library would build.

    Raises ModelError for an unsupported family or variant and for a size that is missing or senseless.
    """
    model_type, family = family_of(config, file=file)
    read = _Reader(config, family, file)
    hidden, heads, vocab = read.size("hidden_size"), read.size("num_attention_heads"), read.size("vocab_size")
    kv_heads, head_dim = read.size("num_key_value_heads", heads), read.size("head_dim", hidden // heads)
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


def _check_variant(config: Config, family: Family, file: str | None) -> None:
    """ModelError for variants of a supported family whose computation the shards do not cover."""
    reasons = {key: why for key, why in family.unsupported.items() if config.get(key)}
    reasons |= {key: "mixture-of-experts layers are not supported" for key in _EXPERT_KEYS if config.get(key)}
    if config.get("num_kv_shared_layers"):
        reasons["num_kv_shared_layers"] = "layers that share one KV cache cannot be cut apart"
    if config.get("quantization_config"):
        reasons["quantization_config"] = "pre-quantised checkpoints are not supported; quantise from float weights"
    for key, why in reasons.items():
        raise ModelError(f"unsupported {family.label} variant: {why}", file=file, path=key, value=config[key])
