"""Trained models of others through the split: their golden text, their sorted letters, their stored activations."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from testbed.models.shard import ShardInput
from testbed.models.source import ModelSource, from_folder, resolve
from testbed.models.tokenizer import load_tokenizer

from .tiny_models import generate_alone, load_reference, pipeline, reference_generate, step

STORY = ", there was a little girl named Lily. She loved to play outside in the park."
LETTERS, HALF = 3, 6
# Rounding only (the authors computed in their own program): largest difference seen 1e-6 at values up to 9.
ACTIVATION_BOUND = 5e-6


@pytest.fixture(scope="module")
def stories(data_dir: Path) -> ModelSource:
    return resolve(str(data_dir / "stories260K" / "hf"))


@pytest.mark.parametrize("cut", range(6))
def test_stories_tells_its_golden_text_at_every_cut(stories: ModelSource, data_dir: Path, cut: int) -> None:
    tokenizer = load_tokenizer(stories, data_dir / "stories260K" / "tok512.model")
    prompt = tokenizer.encode("Once upon a time")
    assert prompt == [1, 403, 407, 261, 378]
    tokens, logits = generate_alone(pipeline(stories, [cut]), prompt, 32)
    text = tokenizer.decode(prompt + tokens)
    assert text.startswith("Once upon a time" + STORY)
    expected_tokens, expected_logits = reference_generate(load_reference(stories), prompt, 32)
    assert tokens == expected_tokens
    assert np.array_equal(logits, expected_logits)


def _decode(entry: dict[str, object]) -> np.ndarray:
    """An array as the authors store it: base64 of little-endian float32."""
    raw = base64.b64decode(str(entry["data"]))
    return np.frombuffer(raw, dtype="<f4").reshape(entry["shape"])


@pytest.fixture(scope="module")
def sorter(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """The minGPT model as a GPT-2 folder: minGPT's linear layers are GPT-2's Conv1D transposed."""
    stored = json.loads((data_dir / "gpt-nano-sort" / "gpt-nano-sort-model.json").read_text())
    config = GPT2Config(
        vocab_size=LETTERS,
        n_positions=stored["config"]["block_size"],
        n_embd=stored["config"]["n_embd"],
        n_layer=stored["config"]["n_layer"],
        n_head=stored["config"]["n_head"],
        activation_function="gelu_new",
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    weights = {}
    for name, entry in stored.items():
        if name != "config" and not name.endswith(".attn.bias"):  # that one is the causal mask, not a weight
            tensor = torch.from_numpy(_decode(entry).copy())
            is_conv = ".h." in name and name.endswith("weight") and tensor.ndim == 2
            weights[name] = tensor.T.contiguous() if is_conv else tensor
    model = GPT2LMHeadModel(config)
    model.load_state_dict(weights)
    folder = tmp_path_factory.mktemp("sorter")
    model.save_pretrained(folder)
    return from_folder(folder)


@pytest.mark.parametrize("cut", range(4))
def test_sorter_sorts_every_input_at_every_cut(sorter: ModelSource, cut: int) -> None:
    """All 3^6 inputs as 729 sessions of one batch through the split."""
    inputs = dict(enumerate(itertools.product(range(LETTERS), repeat=HALF)))
    shards = pipeline(sorter, [cut])
    for shard, session in itertools.product(shards, inputs):
        shard.open(session)
    outputs: dict[int, list[int]] = {session: [] for session in inputs}
    pending = {session: list(letters) for session, letters in inputs.items()}
    for _ in range(HALF):
        for session, logits in step(shards, pending, batched=True).items():
            outputs[session].append(int(logits.argmax()))
            pending[session] = outputs[session][-1:]
    assert sum(outputs[session] == sorted(letters) for session, letters in inputs.items()) == LETTERS**HALF


@pytest.mark.parametrize("cut", range(4))
@pytest.mark.parametrize("batched", [True, False])
def test_sorter_meets_the_authors_activations(sorter: ModelSource, data_dir: Path, cut: int, batched: bool) -> None:
    """Hidden states at the cut against ``block{cut - 1}``; logits of the last position against ``lm_head``."""
    partials = json.loads((data_dir / "gpt-nano-sort" / "gpt-nano-sort-t0-partials.json").read_text())
    prompts = _decode(partials["idx"]).astype(int).tolist()
    shards = pipeline(sorter, [cut])
    for shard, row in itertools.product(shards, range(len(prompts))):
        shard.open(row)
    inputs = [ShardInput(session=row, tokens=ids) for row, ids in enumerate(prompts)]
    outputs = shards[0].forward(inputs, batched=batched)
    if len(shards) > 1:
        assert np.abs(np.array(outputs) - _decode(partials[f"block{cut - 1}"])).max() <= ACTIVATION_BOUND
        inputs = [ShardInput(session=row, hidden=hidden) for row, hidden in enumerate(outputs)]
        outputs = shards[1].forward(inputs, batched=batched)
    assert np.abs(np.array(outputs) - _decode(partials["lm_head"])[:, -1]).max() <= ACTIVATION_BOUND
