"""Shards on a CUDA device: the CPU's greedy tokens in float32, bfloat16 that runs, tokens per second by batch size."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource, from_folder

CUT, LAYERS = 3, 8
PROMPTS = {session: [(7 * session + 3 * index) % 1000 for index in range(5 + 4 * session)] for session in range(6)}
STEPS = 24
# Largest difference that float32 rounding on another device may make to a logit, relative to the largest logit.
RELATIVE_BOUND = 1e-4
HALF_PRECISION_COSINE = 0.98  # a CPU keeps 0.993 in bfloat16


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """A random Llama of 24 M weights whose greedy choices are clear-cut."""
    logging.disable_progress_bar()
    folder: Path = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=1000,
        initializer_range=0.1,
    )
    torch.manual_seed(1)
    LlamaForCausalLM(config).save_pretrained(folder)
    return from_folder(folder)


def pair(source: ModelSource, device: str, dtype: str) -> list[Shard]:
    """Front and back of the model on one device, all sessions open."""
    ends = ((0, CUT), (CUT, LAYERS))
    shards = [Shard(source, start=start, stop=stop, device=device, dtype=dtype) for start, stop in ends]
    for shard in shards:
        for session in PROMPTS:
            shard.open(session)
    return shards


def iterate(shards: list[Shard], pending: dict[int, list[int]]) -> dict[int, np.ndarray]:
    """One iteration of all sessions through front and back in one batch."""
    inputs = [ShardInput(session=session, tokens=ids) for session, ids in pending.items()]
    hidden = shards[0].forward(inputs)
    inputs = [ShardInput(session=item.session, hidden=row) for item, row in zip(inputs, hidden, strict=True)]
    return dict(zip(pending, shards[1].forward(inputs), strict=True))


def greedy(shards: list[Shard]) -> tuple[dict[int, list[int]], np.ndarray]:
    """Tokens of every session and all logits [steps, sessions, V]."""
    pending = {session: list(prompt) for session, prompt in PROMPTS.items()}
    tokens: dict[int, list[int]] = {session: [] for session in PROMPTS}
    logits = []
    for _ in range(STEPS):
        rows = iterate(shards, pending)
        logits.append([rows[session] for session in PROMPTS])
        for session, row in rows.items():
            tokens[session].append(int(row.argmax()))
            pending[session] = tokens[session][-1:]
    return tokens, np.array(logits)


def smallest_margin(logits: np.ndarray) -> float:
    """By how much the least certain choice was ahead of its runner-up."""
    top_two = np.sort(logits, axis=-1)[..., -2:]
    return float((top_two[..., 1] - top_two[..., 0]).min())


def test_the_model_decides_clearly_enough_to_compare_devices(source: ModelSource) -> None:
    """Runs without a GPU: rounding within the bound cannot change any greedy choice below."""
    logits = greedy(pair(source, "cpu", "float32"))[1]
    assert smallest_margin(logits) > 2 * RELATIVE_BOUND * np.abs(logits).max()


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """1 where two logit vectors point the same way."""
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


@pytest.mark.gpu
def test_cuda_float32_gives_the_cpus_tokens(source: ModelSource) -> None:
    tokens, logits = greedy(pair(source, "cpu", "float32"))
    cuda_tokens, cuda_logits = greedy(pair(source, "cuda", "float32"))
    assert cuda_tokens == tokens
    assert np.abs(cuda_logits - logits).max() <= RELATIVE_BOUND * np.abs(logits).max()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_on_cuda(source: ModelSource, dtype: str) -> None:
    """Logits after the prompts point where the CPU's float32 logits point (random weights amplify rounding)."""
    shards = pair(source, "cuda", dtype)
    assert all(item.device.type == "cuda" for shard in shards for item in shard.module.parameters())
    expected = iterate(pair(source, "cpu", "float32"), dict(PROMPTS))
    got = iterate(shards, dict(PROMPTS))
    assert min(cosine(got[session], expected[session]) for session in PROMPTS) > HALF_PRECISION_COSINE


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tokens_per_second_by_batch_size(
    source: ModelSource, dtype: str, record_property: pytest.RecordProperty, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recorded, not judged: decode steps of the back shard (five layers and the head) with 64 tokens of history."""
    steps, rng = 20, np.random.default_rng(0)
    for batch in (1, 8, 32, 128, 512):
        back = Shard(source, start=CUT, stop=LAYERS, device="cuda", dtype=dtype)
        for session in range(batch):
            back.open(session)
        prompt = rng.normal(size=(64, 512)).astype(np.float32)
        back.forward([ShardInput(session=session, hidden=prompt) for session in range(batch)])
        inputs = [ShardInput(session=session, hidden=prompt[:1]) for session in range(batch)]
        back.forward(inputs)  # results arrive on the host, so each call ends when the device is done
        started = time.perf_counter()
        for _ in range(steps):
            outputs = back.forward(inputs)
        rate = batch * steps / (time.perf_counter() - started)
        assert len(outputs) == batch
        record_property(f"tokens_per_s_{dtype}_batch_{batch}", round(rate))
        with capsys.disabled():
            sys.stdout.write(f"\ncuda {dtype} batch {batch}: {rate:.0f} tokens/s")
