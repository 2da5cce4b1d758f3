"""Every family, cut anywhere, at batch 1 gives the unsplit model's own generate(): tokens and logits, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from testbed.core.errors import ModelError
from testbed.models.families import FAMILIES
from testbed.models.sampling import Sampler
from testbed.models.sampling_config import SamplingConfig
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource

from .tiny_models import (
    CASES,
    LAYERS,
    PROMPT,
    WINDOW,
    config_of,
    generate_alone,
    load_reference,
    pipeline,
    reference_generate,
    save_tiny,
)

Tiny = Callable[[str], ModelSource]
Halves = Callable[[str], list[list[Shard]]]
NEW_TOKENS = 9
assert len(PROMPT) + NEW_TOKENS > 2 * WINDOW  # the sliding windows slide


@pytest.fixture(scope="module")
def at_every_cut(tiny: Tiny) -> Halves:
    """A case's front and back at the cuts 0 to L, built at the first use."""
    built: dict[str, list[list[Shard]]] = {}

    def get(case: str) -> list[list[Shard]]:
        if case not in built:
            built[case] = [pipeline(tiny(case), [cut]) for cut in range(LAYERS + 1)]
        return built[case]

    return get


def test_every_family_of_the_table_has_a_case() -> None:
    assert {case.split(maxsplit=1)[0] for case in CASES} == set(FAMILIES)


@pytest.mark.parametrize("case", CASES)
def test_greedy_is_bit_identical_at_every_cut(tiny: Tiny, at_every_cut: Halves, case: str) -> None:
    tokens, logits = reference_generate(load_reference(tiny(case)), PROMPT, NEW_TOKENS)
    assert len(set(tokens)) > 1  # a model that repeats one token would prove little
    for shards in at_every_cut(case):
        got_tokens, got_logits = generate_alone(shards, PROMPT, NEW_TOKENS)
        assert got_tokens == tokens
        assert np.array_equal(got_logits, logits)


@pytest.mark.parametrize("case", CASES)
def test_seeded_sampling_draws_what_generate_draws(tiny: Tiny, at_every_cut: Halves, case: str) -> None:
    import torch

    options = {"temperature": 0.7, "top_k": 30, "top_p": 0.9}
    torch.manual_seed(100)
    tokens, logits = reference_generate(load_reference(tiny(case)), PROMPT, NEW_TOKENS, do_sample=True, **options)
    for shards in at_every_cut(case):
        sampler = Sampler(SamplingConfig(greedy=False, **options), seed=100)
        got_tokens, got_logits = generate_alone(shards, PROMPT, NEW_TOKENS, sampler.sample)
        assert got_tokens == tokens
        assert np.array_equal(got_logits, logits)


@pytest.mark.parametrize("case", ["llama", "gemma3_text sliding", "gpt2", "opt post-norm, projected", "granite"])
def test_three_stretches_are_as_good_as_two(tiny: Tiny, case: str) -> None:
    source = tiny(case)
    tokens, logits = reference_generate(load_reference(source), PROMPT, NEW_TOKENS)
    got_tokens, got_logits = generate_alone(pipeline(source, [1, 2]), PROMPT, NEW_TOKENS)
    assert got_tokens == tokens
    assert np.array_equal(got_logits, logits)


@pytest.mark.parametrize("case", ["llama", "mistral sliding", "qwen3", "gemma2 sliding", "gpt_neox", "opt"])
@pytest.mark.parametrize(("attention", "dtype"), [("eager", "float32"), (None, "bfloat16")])
def test_other_attention_and_half_precision(tiny: Tiny, case: str, attention: str | None, dtype: str) -> None:
    source = tiny(case)
    model = load_reference(source, attention=attention, dtype=dtype)
    tokens, logits = reference_generate(model, PROMPT, NEW_TOKENS)
    shards = pipeline(source, [2], attn_implementation=attention, dtype=dtype)
    got_tokens, got_logits = generate_alone(shards, PROMPT, NEW_TOKENS)
    assert got_tokens == tokens
    assert np.array_equal(got_logits, logits)


def test_prompt_longer_than_the_sliding_window(tiny: Tiny) -> None:
    source, prompt = tiny("mistral sliding"), [*PROMPT, *range(20, 20 + 2 * WINDOW)]
    tokens, logits = reference_generate(load_reference(source), prompt, NEW_TOKENS)
    got_tokens, got_logits = generate_alone(pipeline(source, [1]), prompt, NEW_TOKENS)
    assert got_tokens == tokens
    assert np.array_equal(got_logits, logits)


@pytest.mark.parametrize("case", ["llama", "gpt_neox", "opt"])
def test_indexed_checkpoint_of_many_files(tmp_path: Path, case: str) -> None:
    source = save_tiny(case, tmp_path, max_shard_size="16KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > LAYERS
    tokens, logits = reference_generate(load_reference(source), PROMPT, 4)
    got_tokens, got_logits = generate_alone(pipeline(source, [1]), PROMPT, 4)
    assert got_tokens == tokens
    assert np.array_equal(got_logits, logits)


@pytest.mark.parametrize("case", CASES)
def test_weights_are_counted_as_the_library_builds_them(tiny: Tiny, at_every_cut: Halves, case: str) -> None:
    import torch

    source = tiny(case)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(case))
    model.tie_weights()
    assert source.shape.total_params == sum(item.numel() for item in model.parameters())
    for shards in at_every_cut(case)[1:LAYERS]:
        for shard in shards:
            held = sum(item.numel() for item in shard.module.parameters())
            assert held == source.shape.params(shard.start, shard.stop)


@pytest.mark.parametrize("case", ["llama", "mistral sliding"])
def test_truncated_session_goes_on_as_if_it_had_never_run_on(tiny: Tiny, case: str) -> None:
    shard = Shard(tiny(case), start=0, stop=LAYERS)
    shard.open(1)
    shard.forward([ShardInput(session=1, tokens=PROMPT[:3])])
    before = shard.forward([ShardInput(session=1, tokens=[8])])[0]
    shard.forward([ShardInput(session=1, tokens=[50])])
    shard.truncate(1, 3)
    assert np.array_equal(shard.forward([ShardInput(session=1, tokens=[8])])[0], before)


def test_truncating_behind_a_slid_window_is_refused(tiny: Tiny) -> None:
    shard = Shard(tiny("mistral sliding"), start=0, stop=1)
    shard.open(1)
    shard.forward([ShardInput(session=1, tokens=list(range(3, 60)))])
    with pytest.raises(ModelError, match="sliding window"):
        shard.truncate(1, 20)
