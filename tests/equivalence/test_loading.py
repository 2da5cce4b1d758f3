"""How checkpoints differ from the module they fill, and what a wrong one says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from testbed.core.errors import ModelError
from testbed.models.families import FAMILIES, shape_of
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource, from_folder

from .tiny_models import LAYERS, PROMPT, WINDOW, generate_alone, load_reference, pipeline, reference_generate, save_tiny

Tiny = Callable[[str], ModelSource]
SMALL = {"num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 96, "num_attention_heads": 4}


def rewrite(source: ModelSource, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> ModelSource:
    """The same folder with its tensors changed."""
    path = source.weights_folder() / "model.safetensors"
    save_file(change(load_file(path)), str(path))
    return from_folder(source.weights_folder())


def test_names_without_the_base_models_prefix(tiny: Tiny, tmp_path: Path) -> None:
    """As GPT-2's own repository has them, causal-mask buffers included."""

    def strip(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        return bare | {f"h.{layer}.attn.bias": torch.ones(1, 1, 64, 64) for layer in range(LAYERS)}

    source = rewrite(save_tiny("gpt2", tmp_path), strip)
    tokens, logits = reference_generate(load_reference(source), PROMPT, 4)
    got_tokens, got_logits = generate_alone(pipeline(source, [1]), PROMPT, 4)
    assert got_tokens == tokens
    assert np.array_equal(got_logits, logits)
    # The same weights at other offsets of the file: aligned differently in memory, so rounded differently.
    assert np.allclose(generate_alone(pipeline(tiny("gpt2"), [1]), PROMPT, 4)[1], logits, atol=1e-5)


def test_a_tensor_missing_inside_a_layer(tmp_path: Path) -> None:
    gone = "model.layers.1.self_attn.k_proj.weight"
    source = save_tiny("llama", tmp_path)
    source = rewrite(source, lambda tensors: {name: item for name, item in tensors.items() if name != gone})
    Shard(source, start=0, stop=1)
    with pytest.raises(ModelError, match=r"tensor missing.*layers\.1\.self_attn\.k_proj"):
        Shard(source, start=1, stop=LAYERS)


def test_a_tensor_that_does_not_fit_the_config(tmp_path: Path) -> None:
    source = rewrite(save_tiny("llama", tmp_path), lambda tensors: tensors | {"model.norm.weight": torch.ones(31)})
    with pytest.raises(ModelError, match=r"norm\.weight does not fit.*\[31\].*\[32\]"):
        Shard(source, start=2, stop=LAYERS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 1, "stop": 1}, "at least one layer"),
        ({"start": 0, "stop": 4}, "at least one layer"),
        ({"start": 0, "stop": 2, "dtype": "int7"}, "dtype"),
        ({"start": 0, "stop": 2, "attn_implementation": "flash"}, "attn_implementation"),
    ],
)
def test_shards_that_cannot_be(tiny: Tiny, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Shard(tiny("llama"), **options)


def test_soft_capped_scores_have_no_sdpa(tiny: Tiny) -> None:
    with pytest.raises(ModelError, match=r"sdpa.*allowed: eager"):
        Shard(tiny("gemma2 sliding"), start=0, stop=1, attn_implementation="sdpa")


def test_rotary_scaling_that_depends_on_length_is_not_crossed(tmp_path: Path) -> None:
    """Long-context scaling would change the frequencies of a whole batch when one session grows long."""
    factors = [1.0] * 4
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": factors, "long_factor": [2.0] * 4, "factor": 2}
    source = save_tiny("phi3", tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    rope |= {"original_max_position_embeddings": 32}
    path.write_text(json.dumps(config | {"rope_parameters": rope, "original_max_position_embeddings": 32}))
    shard = Shard(from_folder(source.weights_folder()), start=0, stop=1)
    shard.open(1)
    shard.forward([ShardInput(session=1, tokens=[3] * 32)])
    with pytest.raises(ModelError, match="grows beyond"):
        shard.forward([ShardInput(session=1, tokens=[3])])


@pytest.mark.parametrize("model_type", FAMILIES)
def test_keys_left_out_mean_what_the_library_takes_them_to_mean(model_type: str) -> None:
    """Old config.json files leave defaults out: the count from the bare minimum equals the library's model."""
    minimal: dict[str, Any] = {"model_type": model_type, **SMALL, "pad_token_id": 0}
    if model_type == "opt":
        minimal |= {"ffn_dim": 128, "word_embed_proj_dim": 64}
    elif model_type != "gpt2":
        minimal |= {"intermediate_size": 128}
    if model_type in {"mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3"}:
        minimal |= {"num_key_value_heads": 2}
    keys = {name: value for name, value in minimal.items() if name != "model_type"}
    config: PreTrainedConfig = AutoConfig.for_model(model_type, **keys)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    shape = shape_of("minimal", minimal)
    assert shape.total_params == sum(item.numel() for item in model.parameters())
    assert shape.tied_embeddings == config.tie_word_embeddings
    assert shape.max_positions == config.max_position_embeddings


def test_windows_are_read_from_the_config(tiny: Tiny) -> None:
    """A front whose layers all slide, a back with a full layer: each shard keeps its own layers' windows."""
    front, back = pipeline(tiny("qwen2 sliding"), [1])
    for shard in (front, back):
        shard.open(1)
    hidden = front.forward([ShardInput(session=1, tokens=list(range(3, 43)))])[0]
    back.forward([ShardInput(session=1, hidden=hidden)])
    per_token = front.source.shape.kv_bytes(1, 0, 1, 32)
    assert front.kv_bytes() == (WINDOW - 1) * per_token
    assert back.kv_bytes() == (40 + WINDOW - 1) * per_token
