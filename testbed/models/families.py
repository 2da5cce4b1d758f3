"""The supported model families: one declarative row each, keyed by Hugging Face ``model_type``.

A row says where a checkpoint keeps the parts that a cut must tell apart and what its layers consist of, so that
weights can be counted from config.json alone. Adding a family means adding a row; the equivalence tests then run it.
"""

from __future__ import annotations

from collections.abc import Mapping

from testbed.core.errors import ModelError, nearest_name
from testbed.models.counting import count_shape
from testbed.models.family import Config, Family
from testbed.models.shape import ModelShape

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
    "phi3": Family(label="Phi-3", fused_qkv=True, fused_mlp=True, defaults={"max_position_embeddings": 4096}),
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
        fused_qkv=True,
        norm="layer",
        grouped_query=False,
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
            "reorder_and_upcast_attn": "its attention bypasses the shards' batched attention",
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
        grouped_query=False,
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
        fused_qkv=True,
        norm="layer",
        grouped_query=False,
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
    return count_shape(name, model_type, family, config, file=file)


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
