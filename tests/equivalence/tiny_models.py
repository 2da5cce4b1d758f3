"""Tiny random models of every supported family, saved as a user would have them, and ways to run them.

Sizes are small enough that all families at all cuts take seconds; windows are shorter than what is generated, and norms
and biases are random too, so that a tensor in the wrong place shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource, from_folder

LAYERS = 3
WINDOW = 6
VOCAB = 96
PROMPT = [3, 17, 60, 9, 41]

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
_SLIDING = {"sliding_window": WINDOW}
_MIXED = _SLIDING | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_OPT = {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "ffn_dim": 48, "init_std": 0.3}

CASES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama tied, biases": {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    "mistral sliding": _SLIDING | {"head_dim": 16},
    "qwen2": {"tie_word_embeddings": True},
    "qwen2 sliding": _MIXED | {"use_sliding_window": True},
    "qwen3": {"head_dim": 16},
    "phi3": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    "phi3 sliding": _SLIDING,
    "gemma": {"head_dim": 16},
    "gemma2 sliding": _MIXED | {"head_dim": 16, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0},
    "gemma3_text sliding": _MIXED | {"head_dim": 16},
    "gpt2": {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 64, "n_inner": 48},
    "opt": _OPT | {"word_embed_proj_dim": 32},
    "opt post-norm, projected": _OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False},
    "gpt_neox": {},
    "gpt_neox serial": {"use_parallel_residual": False},
    "olmo2": {},
    "smollm3": {"no_rope_layers": [1, 0, 1]},
    "granite": {
        "embedding_multiplier": 6.0,
        "residual_multiplier": 0.4,
        "attention_multiplier": 0.2,
        "logits_scaling": 2.0,
    },
}


def config_of(case: str) -> Any:
    """The library's config of one case, e.g. ``mistral sliding``."""
    model_type = case.split(maxsplit=1)[0]
    own = {"gpt2", "opt"}
    common = {key: value for key, value in _COMMON.items() if model_type not in own or "_token_id" in key}
    if model_type in own:
        common |= {"vocab_size": VOCAB, "initializer_range": 0.3, "max_position_embeddings": 64}
    return AutoConfig.for_model(model_type, **(common | CASES[case]))


def save_tiny(case: str, folder: Path, **save_options: Any) -> ModelSource:
    """Writes a random model of the case as a Hugging Face folder and returns it as a source."""
    logging.disable_progress_bar()
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config_of(case))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        if case.startswith("gemma"):  # its inputs are scaled by sqrt(d): keep a tied head from echoing the last token
            model.get_input_embeddings().weight.mul_(0.1)
    model.save_pretrained(folder, **save_options)
    return from_folder(folder)


def load_reference(source: ModelSource, *, attention: str | None = None, dtype: str = "float32") -> Any:
    """The unsplit model as the library loads it."""
    logging.disable_progress_bar()
    options = {} if attention is None else {"attn_implementation": attention}
    return AutoModelForCausalLM.from_pretrained(source.folder, dtype=getattr(torch, dtype), **options).eval()


def reference_generate(
    model: Any, prompt: Sequence[int], new_tokens: int, **options: Any
) -> tuple[list[int], np.ndarray]:
    """The unsplit model's own generate() at batch 1: new tokens and the raw logits of each step [steps, V]."""
    out = model.generate(
        torch.tensor([list(prompt)]),
        attention_mask=torch.ones((1, len(prompt)), dtype=torch.long),
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        output_logits=True,
        return_dict_in_generate=True,
        **({"do_sample": False} | options),
    )
    return out.sequences[0, len(prompt) :].tolist(), torch.cat(out.logits).float().numpy()


def pipeline(source: ModelSource, cuts: Sequence[int], **options: Any) -> list[Shard]:
    """The model cut at the given layers, one shard a stretch; cuts at 0 and L leave that side empty."""
    ends = sorted({0, *cuts, source.shape.num_layers})
    return [Shard(source, start=start, stop=stop, **options) for start, stop in pairwise(ends)]


def step(shards: Sequence[Shard], new_tokens: dict[int, Sequence[int]], *, batched: bool) -> dict[int, np.ndarray]:
    """One iteration of all given sessions through all shards: {session: logits [V]}."""
    inputs = [ShardInput(session=session, tokens=list(ids)) for session, ids in new_tokens.items()]
    for shard in shards[:-1]:
        outputs = shard.forward(inputs, batched=batched)
        inputs = [ShardInput(session=item.session, hidden=out) for item, out in zip(inputs, outputs, strict=True)]
    outputs = shards[-1].forward(inputs, batched=batched)
    return {item.session: out for item, out in zip(inputs, outputs, strict=True)}


def generate_alone(
    shards: Sequence[Shard], prompt: Sequence[int], new_tokens: int, sample: Any = np.argmax, session: int = 0
) -> tuple[list[int], np.ndarray]:
    """A session of its own through the shards at batch 1: new tokens and logits of each step [steps, V]."""
    for shard in shards:
        shard.open(session)
    tokens, logits, pending = [], [], list(prompt)
    for _ in range(new_tokens):
        logits.append(step(shards, {session: pending}, batched=False)[session])
        tokens.append(int(sample(logits[-1])))
        pending = tokens[-1:]
    for shard in shards:
        shard.close(session)
    return tokens, np.array(logits)
