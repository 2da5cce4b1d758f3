"""What a row of the family table says: where a family keeps its parts and what one decoder layer holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
    fused_qkv: bool = False
    fused_mlp: bool = False
    """Whether queries, keys and values, or gate and up, are one matrix."""
    norm: Literal["rms", "layer"] = "rms"
    norms_per_layer: int = 2
    qk_norm: Literal["none", "head", "full"] = "none"
    grouped_query: bool = True
    """Whether the config may set KV heads and head size apart from H and d / H."""
    qkv_bias: Bias = False
    out_bias: Bias = False
    mlp_bias: Bias = False
    position_offset: int = 0
    attention: str = "sdpa"
    defaults: Mapping[str, object] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    unsupported: Mapping[str, str] = field(default_factory=dict)
    """Config keys that, when true, change the computation beyond what the shards cover, and why."""
