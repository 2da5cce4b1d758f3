"""pebble's batches, training loop, scoring and damage, against plain references on an untrained model."""

from __future__ import annotations

import json

import pytest
import torch
from scipy.stats import binomtest
from transformers import LlamaConfig, LlamaForCausalLM

from testbed.models.pebble import tokenizer as pebble_tokenizer
from testbed.models.pebble.batches import ANSWER_WEIGHT, CHANCE_WEIGHT, LONG_EVERY, LONG_ROW_TOKENS, build_batch
from testbed.models.pebble.card import render_card
from testbed.models.pebble.corpus import KIND_SHARES, POLISH_SHARES, PRONOUN_LESSON_SHARES, STANDARD
from testbed.models.pebble.damage import round_rows, round_tokens, rounded_cut, rounded_weights
from testbed.models.pebble.evaluate import accuracy_report, compare, evaluate, wilson_interval
from testbed.models.pebble.scoring import Scored, accuracy_by_kind, score_items
from testbed.models.pebble.tasks import KINDS, build_items
from testbed.models.pebble.tokenizer import BOS_ID, EOS_ID, PAD_ID
from testbed.models.pebble.train import (
    learning_rate,
    lesson,
    load_checkpoint,
    main,
    new_run,
    save_checkpoint,
    total_steps,
    train_step,
)
from testbed.models.pebble.world import build_world

WORLD = build_world()


@pytest.fixture(scope="module")
def tokenizer():
    return pebble_tokenizer.train_tokenizer(WORLD, num_documents=4000)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    return LlamaForCausalLM(config).eval()


def test_a_batch_depends_on_world_and_step_alone(tokenizer):
    first, again = build_batch(WORLD, tokenizer, 5, STANDARD), build_batch(WORLD, tokenizer, 5, STANDARD)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.weights, again.weights)
    assert not torch.equal(first.inputs, build_batch(WORLD, tokenizer, 6, STANDARD).inputs)


def test_a_batch_weights_what_can_be_known_and_skips_padding(tokenizer):
    batch = build_batch(WORLD, tokenizer, 0, STANDARD)
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert set(batch.weights.unique().tolist()) == {0.0, CHANCE_WEIGHT, 1.0, ANSWER_WEIGHT}
    assert not batch.weights[(batch.targets == PAD_ID) | (batch.targets == BOS_ID)].any()
    assert (batch.weights[batch.targets == EOS_ID] == 1.0).all()
    yes = tokenizer.token_to_id("ĠYes")
    assert (batch.weights[batch.targets == yes] == ANSWER_WEIGHT).all()
    assert (batch.targets != PAD_ID).float().mean() > 0.85


def test_some_batches_have_long_rows(tokenizer):
    assert build_batch(WORLD, tokenizer, LONG_EVERY - 1, STANDARD).inputs.shape[1] == LONG_ROW_TOKENS


def test_the_curriculum_starts_narrow_and_the_rate_ends_low():
    assert [lesson(step, 100).breadth for step in (0, 12, 40, 99)] == pytest.approx([0.2, 0.2, 1.0, 1.0])
    assert lesson(49, 100).shares is KIND_SHARES
    assert lesson(71, 100).shares is KIND_SHARES
    assert lesson(50, 100).shares is PRONOUN_LESSON_SHARES
    rates = [learning_rate(step, 10_000) for step in (0, 100, 7500, 9999)]
    assert rates[0] < rates[1] == rates[2]
    assert rates[3] < 0.03 * rates[2]
    assert total_steps(10_000) == 12_500
    polish = [learning_rate(step, 10_000) for step in (10_000, 12_499)]
    assert polish[0] == pytest.approx(0.15 * rates[2])
    assert 0 < polish[1] < 0.001 * polish[0]
    assert lesson(10_000, 10_000).shares is POLISH_SHARES


def test_a_resumed_run_equals_one_that_never_stopped(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr("testbed.models.pebble.batches.TOKENS_PER_STEP", 256)
    monkeypatch.setattr(pebble_tokenizer, "train_tokenizer", lambda world: tokenizer)
    straight = new_run(WORLD, 10)
    save_checkpoint(straight, tmp_path / "checkpoint.pt")
    losses = [train_step(straight) for _ in range(2)]
    stopped = new_run(WORLD, 10)
    load_checkpoint(stopped, tmp_path / "checkpoint.pt")
    train_step(stopped)
    save_checkpoint(stopped, tmp_path / "checkpoint.pt")
    resumed = new_run(WORLD, 99)
    load_checkpoint(resumed, tmp_path / "checkpoint.pt")
    assert (resumed.step, resumed.num_steps) == (1, 10)
    assert train_step(resumed) == losses[1]
    for one, other in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_scores_are_the_summed_log_probabilities_of_the_choice_alone(model, tokenizer):
    items = build_items(WORLD, per_kind=3)
    for item, scored in zip(items, score_items(model, tokenizer, items), strict=True):
        expected = []
        for choice in item.choices:
            start = len(tokenizer.encode(item.context).ids)
            ids = tokenizer.encode(item.context + choice).ids
            logprobs = model(torch.tensor([ids])).logits[0].detach().double().log_softmax(-1)
            expected.append(sum(float(logprobs[at - 1, ids[at]]) for at in range(start, len(ids))))
        assert scored.logprobs == pytest.approx(expected, abs=1e-4)
        assert scored.chosen == expected.index(max(expected))
        per_character = [value / len(choice) for value, choice in zip(expected, item.choices, strict=True)]
        assert scored.chosen_by_length == per_character.index(max(per_character))
        rest = [value for index, value in enumerate(expected) if index != item.gold]
        assert scored.margin == pytest.approx(expected[item.gold] - max(rest), abs=1e-4)


def test_an_untrained_model_is_at_chance(model, tokenizer):
    items = build_items(WORLD, per_kind=100)
    for kind, share in accuracy_by_kind(score_items(model, tokenizer, items), items).items():
        chance = 1 / len(next(item for item in items if item.kind == kind).choices)
        assert abs(share - chance) < 3.5 * (chance * (1 - chance) / 100) ** 0.5


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_rounding_stays_within_half_a_step(bits):
    values = torch.randn(7, 40, generator=torch.Generator().manual_seed(1))
    by_row = values.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert ((round_rows(values, bits) - values).abs() <= by_row / 2 + 1e-6).all()
    by_token = (values.amax(-1, keepdim=True) - values.amin(-1, keepdim=True)) / (2**bits - 1)
    assert ((round_tokens(values, bits) - values).abs() <= by_token / 2 + 1e-6).all()
    assert max(len(row.unique()) for row in round_rows(values, bits)) <= 2**bits - 1
    assert max(len(row.unique()) for row in round_tokens(values, bits)) <= 2**bits


def test_damage_touches_only_its_layers_and_is_undone(model):
    ids = torch.tensor([[1, 5, 9, 30]])
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    plain = model(ids).logits
    with rounded_weights(model, range(2), 3):
        changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
        assert {name.split(".")[2] for name in changed} == {"0", "1"}
        assert len(changed) == 2 * 7
    with rounded_cut(model, 2, 3):
        assert not torch.equal(model(ids).logits, plain)
    assert torch.equal(model(ids).logits, plain)


def test_a_rounded_cut_rounds_what_leaves_that_layer(model):
    ids = torch.tensor([[1, 5, 9, 30]])
    plain = model(ids, output_hidden_states=True).hidden_states
    seen = []
    handle = model.model.layers[2].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with rounded_cut(model, 2, 4):
        model(ids)
    handle.remove()
    assert torch.equal(seen[0], round_tokens(plain[2], 4))


@pytest.mark.parametrize(("right", "total"), [(0, 10), (57, 60), (200, 400), (288, 288)])
def test_intervals_are_wilson_s(right, total):
    expected = binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, total) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_comparison_counts_flips_and_paired_changes():
    items = build_items(WORLD, per_kind=2)[:2]
    right, wrong = [item.gold for item in items], [(item.gold + 1) % len(item.choices) for item in items]
    before = [
        Scored(logprobs=(), margin=m, chosen=c, chosen_by_length=c) for m, c in zip((2.0, 1.0), right, strict=True)
    ]
    after = [
        Scored(logprobs=(), margin=1.5, chosen=right[0], chosen_by_length=right[0]),
        Scored(logprobs=(), margin=-0.5, chosen=wrong[1], chosen_by_length=wrong[1]),
    ]
    found = compare(after, before, items)
    assert (found["acc"], found["flip_rate"]) == (0.5, 0.5)
    assert found["mean_abs_margin_change_nats"] == pytest.approx(1.0)
    assert found["mean_margin_change_nats"] == pytest.approx(-1.0)
    assert found["mean_margin_change_half_width_95_nats"] == pytest.approx(1.96 * 0.5)


def test_the_report_splits_kinds_by_how_often_the_runner_up_was_stated(model, tokenizer):
    items = build_items(WORLD, per_kind=40)
    report = accuracy_report(score_items(model, tokenizer, items), items)
    assert tuple(report) == KINDS
    for row in report.values():
        assert sum(cell["num_items"] for cell in row["by_p_runner_up"].values()) == row["num_items"] == 40
        assert sum(cell["num_right"] for cell in row["by_p_runner_up"].values()) == row["num_right"]


@pytest.mark.slow
def test_training_and_evaluation_run_from_the_command_line(tmp_path):
    main(["--out", str(tmp_path), "--steps", "2", "--threads", "1"])
    assert json.loads((tmp_path / "curve.jsonl").read_text())["step"] == 2
    report = evaluate(tmp_path, per_kind=10)
    card = render_card(report)
    assert "--seed 1 --steps 2" in card
    assert "not distinguishable from chance" in card
