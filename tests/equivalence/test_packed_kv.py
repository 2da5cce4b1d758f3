"""Packed KV caches against the library's own models, whose cache is fed keys and values rounded by a plain function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from testbed.core.errors import ModelError
from testbed.models.kv_format import KV_BITS, KVFormat
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource

from .test_batches import PROMPTS, RELATIVE_BOUND
from .tiny_models import CASES, LAYERS, PROMPT, WINDOW, generate_alone, load_reference, reference_generate, step

Tiny = Callable[[str], ModelSource]
NEW_TOKENS = 9
FRONT_BITS, BACK_BITS = 3, 6


def rounded(states: torch.Tensor, bits: int) -> torch.Tensor:
    """[..., D], each row to the nearest of 2^Q equally spaced numbers; the textbook's asymmetric grid through zero."""
    most = 2**bits - 1
    low, high = states.amin(-1, keepdim=True).clamp(max=0), states.amax(-1, keepdim=True).clamp(min=0)
    step = ((high - low) / most).clamp(min=2.0**-24)
    zero = torch.round(-low / step).clamp(0, most)
    step = step.half().float()
    return ((torch.round(states * (1 / step)) + zero).clamp(0, most) - zero) * step


class RoundingCache(DynamicCache):
    """The library's cache, with so many bits for the layers before `cut` and so many behind it."""

    def __init__(self, config: Any, cut: int) -> None:
        super().__init__(config=config)
        self._cut = cut

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any):
        bits = FRONT_BITS if layer_idx < self._cut else BACK_BITS
        return super().update(rounded(key_states, bits), rounded(value_states, bits), layer_idx, *args, **kwargs)


def pipeline(source: ModelSource, cut: int) -> list[Shard]:
    """Front and back, each at its own width; a cut at 0 or L leaves that side empty."""
    sides = ((0, cut, FRONT_BITS), (cut, LAYERS, BACK_BITS))
    return [Shard(source, start=start, stop=stop, kv_bits=bits) for start, stop, bits in sides if start < stop]


def prefill(shard: Shard, session: int, parts: Sequence[Sequence[int]]) -> np.ndarray:
    shard.open(session)
    for part in parts:
        (logits,) = shard.forward([ShardInput(session=session, tokens=part)])
    return logits


@pytest.mark.parametrize("case", CASES)
def test_every_family_at_every_cut_gives_what_rounding_in_the_library_gives(tiny: Tiny, case: str) -> None:
    source = tiny(case)
    model = load_reference(source)
    exact = reference_generate(model, PROMPT, NEW_TOKENS)[1]
    for cut in range(LAYERS + 1):
        cache = RoundingCache(model.config, cut)
        tokens, logits = reference_generate(model, PROMPT, NEW_TOKENS, past_key_values=cache)
        got_tokens, got_logits = generate_alone(pipeline(source, cut), PROMPT, NEW_TOKENS)
        assert got_tokens == tokens
        assert np.array_equal(got_logits, logits)
        assert not np.allclose(logits, exact, rtol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_bytes_held_are_the_laws(tiny: Tiny, case: str) -> None:
    """Read from the tensors, by hand from the model's sizes: codes and zero points to whole bytes, and the scales."""
    source = tiny(case)
    heads, head_dim = source.shape.num_kv_heads, source.shape.head_dim
    for bits in KV_BITS:
        shard = Shard(source, start=0, stop=LAYERS, kv_bits=bits)
        prefill(shard, 1, [PROMPT])
        record = (2 * heads * (head_dim + 1) * bits + 7) // 8 + 2 * heads * 2
        assert shard.kv_bytes() == len(PROMPT) * LAYERS * record
        assert shard.kv_bytes() == KVFormat(bits=bits).kv_bytes(source.shape, len(PROMPT), 0, LAYERS)
        assert shard.kv_reserved_bytes() == 32 * LAYERS * record  # a block for padding and one of 16 tokens
        shard.close(1)
        assert shard.kv_bytes() == 0


@pytest.mark.parametrize("case", ["llama", "mistral sliding", "gemma3_text sliding", "gpt2"])
def test_a_prompt_in_pieces_is_the_prompt_at_once(tiny: Tiny, case: str) -> None:
    """New tokens attend to what is stored of themselves, so it makes no difference when the others came."""
    shard = Shard(tiny(case), start=0, stop=LAYERS, kv_bits=4)
    prompt = list(range(3, 3 + 3 * WINDOW))
    whole = prefill(shard, 1, [prompt])
    pieces = prefill(shard, 2, [prompt[:4], prompt[4:5], prompt[5:]])
    singly = prefill(shard, 3, [[token] for token in prompt])
    for got in (pieces, singly):
        assert np.abs(got - whole).max() <= RELATIVE_BOUND * np.abs(whole).max()


@pytest.mark.parametrize("case", ["llama", "mistral sliding"])
def test_a_truncated_session_goes_on_as_if_it_had_never_run_on(tiny: Tiny, case: str) -> None:
    shard = Shard(tiny(case), start=0, stop=LAYERS, kv_bits=3)
    before = prefill(shard, 1, [PROMPT[:3], [8]])
    shard.forward([ShardInput(session=1, tokens=[50])])
    shard.truncate(1, 3)
    (again,) = shard.forward([ShardInput(session=1, tokens=[8])])
    assert np.array_equal(again, before)


@pytest.mark.parametrize("case", ["llama", "mistral sliding", "gemma2 sliding", "gpt_neox"])
def test_sessions_in_one_batch_get_what_they_get_alone(tiny: Tiny, case: str) -> None:
    """Ragged lengths, prompts beside decode steps; sums in another order may move a value over a code's edge.

    At 8 bits such an edge is a 255th of a row's span away, so tokens stay and logits do within a few steps.
    """
    shards = [Shard(tiny(case), start=start, stop=stop, kv_bits=8) for start, stop in ((0, 1), (1, LAYERS))]
    for shard in shards:
        for session in PROMPTS:
            shard.open(session)
    first = step(shards, {session: PROMPTS[session] for session in (0, 1, 2)}, batched=True)
    tokens = {session: [int(row.argmax())] for session, row in first.items()}
    for _ in range(NEW_TOKENS - 1):
        late = {session: prompt for session, prompt in PROMPTS.items() if session not in tokens}
        pending = {session: chosen[-1:] for session, chosen in tokens.items()} | late
        rows = step(shards, pending, batched=True)
        for session, row in rows.items():
            tokens.setdefault(session, []).append(int(row.argmax()))
    for session, chosen in tokens.items():
        alone, logits = generate_alone(shards, PROMPTS[session], len(chosen), session=99)
        assert chosen == alone
        assert np.abs(rows[session] - logits[-1]).max() <= 0.02 * np.abs(logits).max()


def test_sliding_layers_keep_no_more_than_the_window(tiny: Tiny) -> None:
    shard = Shard(tiny("mistral sliding"), start=0, stop=LAYERS, kv_bits=5)
    prefill(shard, 1, [PROMPT, *([token] for token in range(3, 53))])
    assert shard.kv_bytes() == KVFormat(bits=5).kv_bytes(shard.source.shape, WINDOW - 1, 0, LAYERS)
    with pytest.raises(ModelError, match="sliding window"):
        shard.truncate(1, 20)


def test_more_bits_come_closer(tiny: Tiny) -> None:
    source, errors = tiny("llama"), []
    exact = prefill(Shard(source, start=0, stop=LAYERS), 1, [PROMPT])
    for bits in (8, 6, 4, 2):
        errors.append(np.abs(prefill(Shard(source, start=0, stop=LAYERS, kv_bits=bits), 1, [PROMPT]) - exact).max())
    assert 0 < errors[0] < errors[1] < errors[2] < errors[3]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_models_read_back_in_their_own_dtype(tiny: Tiny, dtype: str) -> None:
    source = tiny("llama")
    exact = generate_alone([Shard(source, start=0, stop=LAYERS, dtype=dtype)], PROMPT, 4)[1]
    packed = Shard(source, start=0, stop=LAYERS, dtype=dtype, kv_bits=8)
    logits = generate_alone([packed], PROMPT, 4)[1]
    assert 0 < np.abs(logits[0] - exact[0]).max() <= 0.1 * np.abs(exact[0]).max()


def test_a_width_that_there_is_none_of_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ModelError, match="no such KV bits"):
        Shard(tiny("llama"), start=0, stop=LAYERS, kv_bits=7)
