"""The weights in the package: they load, they are small, and they hold what their card says."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from testbed.models.pebble.card import render_card
from testbed.models.pebble.damage import rounded_cut, rounded_weights
from testbed.models.pebble.evaluate import SHIPPED, compare, load_model
from testbed.models.pebble.prompts import prompts
from testbed.models.pebble.scoring import accuracy_by_kind, score_items
from testbed.models.pebble.tasks import KINDS, Item, build_items
from testbed.models.pebble.tokenizer import BOS_ID, EOS_ID, load_tokenizer
from testbed.models.pebble.world import build_world

WORLD = build_world()
PER_KIND = 60
MAX_BYTES = 12 * 1000 * 1000
REPORT = json.loads((SHIPPED / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def shipped():
    return load_model(SHIPPED)


@pytest.fixture(scope="module")
def items():
    return build_items(WORLD, per_kind=PER_KIND)


@pytest.fixture(scope="module")
def scored(shipped, items):
    return score_items(*shipped, items)


def test_the_folder_is_small_and_complete():
    names = {path.name for path in SHIPPED.iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "README.md"} <= names
    assert {"tokenizer.json", "tokenizer_config.json", "evaluation.json"} <= names
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= MAX_BYTES


def test_the_architecture_is_a_deep_llama_with_grouped_query_attention():
    config = AutoConfig.from_pretrained(SHIPPED)
    assert config.model_type == "llama"
    assert config.num_hidden_layers >= 12
    assert config.num_key_value_heads < config.num_attention_heads
    assert (config.bos_token_id, config.eos_token_id, config.use_cache) == (BOS_ID, EOS_ID, True)
    assert config.max_position_embeddings >= 512
    model = AutoModelForCausalLM.from_pretrained(SHIPPED, dtype=torch.float32)
    assert 1_000_000 <= sum(weight.numel() for weight in model.parameters()) <= 5_000_000


def test_auto_tokenizer_reads_the_same_ids(shipped):
    auto, plain = AutoTokenizer.from_pretrained(SHIPPED), shipped[1]
    for prompt in prompts(1, 20):
        ids = auto(prompt)["input_ids"]
        assert ids == plain.encode(prompt).ids
        assert ids[0] == BOS_ID
        assert auto.decode(ids, skip_special_tokens=True) == prompt
    assert (auto.bos_token_id, auto.eos_token_id, auto.pad_token_id) == (1, 2, 0)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60).filter(lambda text: "<" not in text))
@settings(max_examples=100, deadline=None)
def test_any_text_survives_the_tokenizer(text):
    tokenizer = load_tokenizer(SHIPPED)
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_values_and_names_are_single_tokens(shipped):
    for item in build_items(WORLD):
        if item.kind in ("facts", "yes_no", "pronoun"):
            assert all(len(shipped[1].encode(choice, add_special_tokens=False).ids) == 1 for choice in item.choices)


@pytest.mark.parametrize("kind", KINDS)
def test_accuracy_on_some_items_is_what_the_card_says(kind, scored, items):
    right = round(accuracy_by_kind(scored, items)[kind] * PER_KIND)
    low, high = REPORT["accuracy"][kind]["acc_interval_95"]
    assert binom.ppf(1e-3, PER_KIND, low) <= right <= binom.ppf(1 - 1e-3, PER_KIND, high)


@pytest.mark.parametrize("kind", ["continuation", "facts", "purpose", "pronoun"])
def test_the_four_solved_kinds_reach_95_percent(kind):
    assert REPORT["accuracy"][kind]["acc"] >= 0.95


def test_the_card_is_written_from_the_report():
    assert (SHIPPED / "README.md").read_text() == render_card(REPORT)


def test_choices_follow_from_the_context(shipped, items):
    """The same choices after another item's context of the same kind are at chance: the choices give nothing away."""
    for kind in ("facts", "purpose"):
        own = [item for item in items if item.kind == kind]
        swapped = [_after(item, own[(index + 1) % len(own)].context) for index, item in enumerate(own)]
        share = accuracy_by_kind(score_items(*shipped, swapped), swapped)[kind]
        chance = 1 / len(own[0].choices)
        assert abs(share - chance) < 3.5 * (chance * (1 - chance) / len(own)) ** 0.5


def _after(item: Item, context: str) -> Item:
    return Item(kind=item.kind, context=context, choices=item.choices, gold=item.gold, p_runner_up=item.p_runner_up)


def test_the_runner_up_is_second_and_closer_the_oftener_it_was_stated():
    cells = REPORT["accuracy"]["facts"]["by_p_runner_up"]
    margins = [cells[level]["median_margin_nats"] for level in ("0.0", "0.1", "0.2", "0.3", "0.4")]
    assert margins == sorted(margins, reverse=True)


def test_fewer_bits_change_margins_and_choices_more(shipped, items, scored):
    model, tokenizer = shipped
    some = [index for index, item in enumerate(items) if item.kind in ("facts", "purpose")]
    asked, before = [items[index] for index in some], [scored[index] for index in some]
    for damage in (lambda bits: rounded_weights(model, range(12), bits), lambda bits: rounded_cut(model, 6, bits)):
        found = []
        for bits in (8, 4, 2):
            with damage(bits):
                found.append(compare(score_items(model, tokenizer, asked), before, asked))
        changes = [row["mean_abs_margin_change_nats"] for row in found]
        flips = [row["flip_rate"] for row in found]
        assert changes[0] < changes[1] < changes[2]
        assert flips[0] <= flips[1] < flips[2]


def test_greedy_text_ends_itself(shipped):
    model, tokenizer = shipped
    ended = 0
    for prompt in prompts(5, 10):
        ids = torch.tensor([tokenizer.encode(prompt).ids])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, do_sample=False)
        ended += int(out[0, -1]) == EOS_ID
    assert ended >= 9
