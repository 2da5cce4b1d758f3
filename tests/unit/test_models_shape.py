"""Byte and FLOP laws against published sizes, hand-computed values and invariants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.core.errors import ModelError
from testbed.models.families import shape_of
from testbed.models.known_shapes import KNOWN_CONFIGS
from testbed.models.shape import ModelShape

# Parameter counts as the model cards and repositories state them, in millions.
PUBLISHED_MILLIONS = {
    "llama-2-7b": 6738.4,
    "llama-2-13b": 13015.9,
    "llama-2-70b": 68976.6,
    "llama-3-8b": 8030.3,
    "llama-3-70b": 70553.7,
    "llama-3.1-8b": 8030.3,
    "llama-3.1-70b": 70553.7,
    "llama-3.2-1b": 1235.8,
    "llama-3.2-3b": 3212.7,
    "qwen2.5-1.5b": 1543.7,
    "qwen2.5-3b": 3085.9,
    "qwen2.5-7b": 7615.6,
    "qwen2.5-0.5b": 494.0,
    "qwen2.5-14b": 14770.0,
    "qwen2.5-32b": 32763.9,
    "qwen2.5-72b": 72706.2,
    "qwen3-0.6b": 596.0,
    "qwen3-1.7b": 1720.6,
    "qwen3-4b": 4022.5,
    "qwen3-8b": 8190.7,
    "qwen3-14b": 14768.3,
    "qwen3-32b": 32762.1,
    "mistral-7b": 7241.7,
    "phi-3.5-mini": 3821.1,
    "gemma-2-2b": 2614.3,
    "gemma-2-9b": 9241.7,
    "smollm2-1.7b": 1711.4,
    "granite-3.1-2b": 2533.5,
}

TINY = ModelShape(
    name="tiny",
    family="llama",
    num_layers=4,
    hidden_size=8,
    num_heads=4,
    num_kv_heads=2,
    head_dim=2,
    intermediate_size=16,
    vocab_size=10,
    max_positions=32,
    tied_embeddings=True,
    params_per_layer=576,
    extra_params_per_layer=16,
    embedding_params=80,
    head_params=88,
    head_matrix_params=80,
)


def known(name: str) -> ModelShape:
    return shape_of(name, KNOWN_CONFIGS[name])


@pytest.mark.parametrize("name", KNOWN_CONFIGS)
def test_known_models_have_their_published_size(name: str) -> None:
    assert known(name).total_params / 1e6 == pytest.approx(PUBLISHED_MILLIONS[name], abs=0.06)


@pytest.mark.parametrize(
    ("name", "layer", "layers", "hidden", "kv_kib"),
    [("llama-2-7b", 202_375_168, 32, 4096, 512), ("llama-2-13b", 317_194_240, 40, 5120, 800)],
)
def test_the_methods_check_values(name: str, layer: int, layers: int, hidden: int, kv_kib: int) -> None:
    shape = known(name)
    assert (shape.params_per_layer, shape.num_layers, shape.hidden_size) == (layer, layers, hidden)
    assert shape.kv_bytes(1, 0, layers, 16) == kv_kib * 1024


def test_grouped_query_attention_shrinks_the_kv_cache_only() -> None:
    assert known("llama-2-70b").kv_bytes(1, 0, 80, 16) == 2 * 8 * 128 * 80 * 2
    assert known("llama-2-70b").hidden_bytes(3, 16) == 3 * 8192 * 2


def test_ends_belong_to_the_sides_that_hold_them() -> None:
    assert TINY.weight_bytes(0, 0, 32) == 0
    assert TINY.weight_bytes(4, 4, 32) == 0
    assert TINY.weight_bytes(0, 1, 32) == 4 * (592 + 80)
    assert TINY.weight_bytes(1, 3, 32) == 4 * 2 * 592
    assert TINY.weight_bytes(3, 4, 32) == 4 * (592 + 88)
    assert TINY.weight_bytes(0, 4, 32) == 4 * (4 * 592 + 80 + 8)  # the tied matrix once
    assert TINY.weight_bytes(1, 2, 3) == 592 * 3 // 8


@given(cut=st.integers(1, 3), bits=st.sampled_from([2, 4, 8, 16, 32]))
def test_two_sides_hold_the_model_and_a_tied_matrix_twice(cut: int, bits: int) -> None:
    sides = TINY.params(0, cut) + TINY.params(cut, 4)
    assert sides == TINY.total_params + TINY.head_matrix_params
    assert TINY.kv_bytes(7, 0, cut, bits) + TINY.kv_bytes(7, cut, 4, bits) == TINY.kv_bytes(7, 0, 4, bits)


@given(new=st.integers(1, 20), past=st.integers(0, 20), start=st.integers(0, 3), span=st.integers(1, 4))
def test_flops_count_one_pair_at_a_time(new: int, past: int, start: int, span: int) -> None:
    """The closed form against adding up every new token's matrices, attended positions and the head."""
    stop = min(start + span, 4)
    total = 0
    for token in range(new):
        for _ in range(start, stop):
            total += 2 * 576
            total += sum(2 * 4 * 2 + 2 * 4 * 2 for _ in range(past + token + 1))  # scores, weighted sum
    total += 2 * 88 * 3 if stop == 4 else 0
    assert TINY.flops(new, past, start, stop, logits_rows=3) == total


@given(first=st.integers(1, 30), second=st.integers(1, 30), past=st.integers(0, 9))
def test_prefill_in_pieces_costs_what_it_costs_at_once(first: int, second: int, past: int) -> None:
    pieces = TINY.flops(first, past, 0, 3) + TINY.flops(second, past + first, 0, 3)
    assert pieces == TINY.flops(first + second, past, 0, 3)


def test_execution_state_is_the_methods_formula() -> None:
    """Front layers hold w tokens, back layers w - 1, plus one hidden state."""
    assert TINY.state_bits(5, 1, 8, 16) == 2 * 1 * (5 * 2 * 2) * 8 + 2 * 3 * (4 * 2 * 2) * 16 + 8 * 8
    full = known("llama-2-7b")
    expected = 2 * 16 * 100 * 4096 * 8 + 2 * 16 * 99 * 4096 * 16 + 4096 * 8
    assert full.state_bits(100, 16, 8, 16) == expected


def test_footprint_counts_both_sides_and_the_groups_side_data() -> None:
    assert TINY.footprint_bits(1, 4, 16) == 576 * (4 + 3 * 16)
    assert TINY.layer_bits(4, 32) == 576 * 4 + 18 * 20
    assert TINY.footprint_bits(4, 4, 16, group_size=32) == 4 * (576 * 4 + 18 * 20)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 5)])
def test_layers_that_do_not_exist_are_refused(start: int, stop: int) -> None:
    with pytest.raises(ModelError, match="layer range"):
        TINY.weight_bytes(start, stop, 8)
    with pytest.raises(ModelError, match="layer range"):
        TINY.flops(1, 0, start, stop)


def test_split_layers_run_from_cloud_only_to_edge_only() -> None:
    assert [TINY.check_split(split) for split in (0, 4)] == [0, 4]
    with pytest.raises(ModelError, match=r"got 5.*0 \(cloud-only\) to 4"):
        TINY.check_split(5)
