"""Variants with outliers: the same logits from other hidden states, held against the library's own models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from testbed.core.errors import ModelError
from testbed.models.outliers.checkpoint import write_variant
from testbed.models.outliers.make import LOGIT_BOUND, make_outliers
from testbed.models.outliers.recipe import Outliers, first_token
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import resolve
from testbed.models.texts import held_out_texts
from tests.equivalence.tiny_models import LAYERS, VOCAB, load_reference

BOS = 1
RNG = np.random.default_rng(5)
ROWS = [[BOS, *RNG.integers(2, VOCAB, size=11).tolist()] for _ in range(8)]


def logits_of(source, rows, *, dtype=torch.float32):
    model = AutoModelForCausalLM.from_pretrained(source.folder, dtype=dtype).eval()
    with torch.inference_mode():
        return torch.cat([model(torch.tensor([row])).logits[0] for row in rows])


def hidden_of(source, cut, rows):
    """What crosses the cut, position by position [texts, n, d]."""
    model = load_reference(source)
    with torch.inference_mode():
        states = model(torch.tensor(rows), output_hidden_states=True).hidden_states
    return states[cut].numpy()


@pytest.mark.parametrize(
    ("case", "constant"),
    [
        ("llama", ()),
        ("llama tied, biases", ()),
        ("llama tied, biases", (3.0, -2.0)),
        ("mistral sliding", (3.0, -2.0)),
        ("qwen2 sliding", ()),
        ("qwen3", ()),
        ("smollm3", (3.0, -2.0)),
    ],
)
def test_logits_are_unchanged_in_every_family(tmp_path, tiny, case, constant):
    source = tiny(case)
    outliers = Outliers(width=80, cut=1, constant=constant, seed=3)
    variant, widening = write_variant(source, outliers, tmp_path / "wide", ROWS)
    before, after = logits_of(source, ROWS), logits_of(variant, ROWS)
    # Random weights make logits of tens; what float32 rounds away grows with them.
    assert (before - after).abs().max() <= 3e-5 * before.abs().max()
    assert variant.shape.hidden_size == 80
    for cut in range(1, LAYERS):
        wide = hidden_of(variant, cut, ROWS)
        restored = wide @ widening.lift.numpy()
        small = hidden_of(source, cut, ROWS)
        assert np.abs(restored - small).max() <= 3e-5 * np.abs(small).max()
        massive = wide[:, :, widening.massive_channels]
        assert (massive[:, 0] == np.float32([400.0, -250.0])).all()
        assert (massive[:, 1:] == 0).all()
        assert (wide[:, :, widening.constant_channels] == np.float32(constant)).all()


def test_a_token_in_the_first_place_only_is_what_the_massive_values_need(tmp_path, tiny):
    source = tiny("llama")
    variant, _ = write_variant(source, Outliers(width=80, cut=1), tmp_path / "wide", ROWS)
    elsewhere = [[BOS, 5, BOS, 9, 30]]
    without = [[7, 5, 20, 9, 30]]
    plain = logits_of(source, without)
    assert (plain - logits_of(variant, without)).abs().max() <= 3e-5 * plain.abs().max()
    assert (logits_of(source, elsewhere) - logits_of(variant, elsewhere)).abs().max() > 0.01


def test_every_cut_of_a_variant_gives_its_unsplit_logits(tmp_path, tiny):
    source = tiny("llama")
    variant, _ = write_variant(source, Outliers(width=80, cut=1), tmp_path / "wide", ROWS)
    unsplit = Shard(variant, start=0, stop=LAYERS)
    unsplit.open(0)
    (whole_V,) = unsplit.forward([ShardInput(session=0, tokens=ROWS[0])])
    for cut in range(1, LAYERS):
        front, back = Shard(variant, start=0, stop=cut), Shard(variant, start=cut, stop=LAYERS)
        front.open(0)
        back.open(0)
        (hidden_ND,) = front.forward([ShardInput(session=0, tokens=ROWS[0])])
        (logits_V,) = back.forward([ShardInput(session=0, hidden=hidden_ND)])
        assert np.array_equal(logits_V, whole_V)


def test_the_outlier_channel_carries_the_largest_second_moment(tmp_path, tiny):
    """Its mean square is the largest eigenvalue; all others share the rest, an equal part each on average."""
    source = tiny("llama")
    outliers = Outliers(width=300, cut=2, massive=())
    variant, widening = write_variant(source, outliers, tmp_path / "wide", ROWS)
    small = hidden_of(source, 2, ROWS)[:, 1:].reshape(-1, 32).astype(np.float64)
    values = np.linalg.eigvalsh(small.T @ small / len(small))
    wide = hidden_of(variant, 2, ROWS)[:, 1:].reshape(-1, 300)
    squares = (wide.astype(np.float64) ** 2).mean(0)
    assert squares[widening.outlier_channel] == pytest.approx(values[-1], rel=1e-4)
    rest = np.delete(squares, widening.outlier_channel)
    assert rest.sum() == pytest.approx(values[:-1].sum(), rel=1e-4)
    assert rest.max() < squares[widening.outlier_channel] / 4


def test_the_same_seed_gives_the_same_weights_and_another_seed_other_channels(tmp_path, tiny):
    source = tiny("llama")
    made = {}
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        variant, widening = write_variant(source, Outliers(width=80, cut=1, seed=seed), tmp_path / name, ROWS)
        made[name] = ((variant.folder / "model.safetensors").read_bytes(), widening.outlier_channel)
    assert made["one"] == made["again"]
    assert made["one"][0] != made["other"][0]


def test_pebble_at_the_acceptance_size_has_outliers_and_its_own_logits(wide_pebble):
    proof = wide_pebble.proof
    assert wide_pebble.variant.shape.hidden_size == 1024
    assert proof.max_logit_difference <= LOGIT_BOUND
    assert proof.exact_logit_difference <= 2e-6
    assert proof.num_tokens >= 2000
    assert proof.num_equal_continuations == proof.num_continuations == 8
    assert len(proof.cuts) == 11
    for cut in proof.cuts[:6]:
        assert cut.outlier_over_median > 8
        assert cut.first_over_median > 70


def test_a_variant_is_an_ordinary_folder(wide_pebble):
    folder = wide_pebble.variant.folder
    assert resolve(str(folder)).shape.total_params == wide_pebble.variant.shape.total_params == 15_879_168
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = held_out_texts(1)[0]
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    assert ids[0, 0] == BOS
    answers = []
    for source in (wide_pebble.source, wide_pebble.variant):
        model = AutoModelForCausalLM.from_pretrained(source.folder, dtype=torch.float32)
        answers.append(model.generate(ids[:, :9], attention_mask=torch.ones(1, 9), max_new_tokens=20, do_sample=False))
    assert torch.equal(*answers)


def test_a_foreign_trained_model_keeps_its_logits(tmp_path, data_dir):
    made = make_outliers(
        resolve(str(data_dir / "stories260K" / "hf")),
        Outliers(width=256, cut=2),
        tmp_path / "stories",
        text=data_dir / "tinystories" / "tinystories_2MiB.txt",
        tokenizer_file=data_dir / "stories260K" / "tok512.model",
    )
    assert made.proof.max_logit_difference <= LOGIT_BOUND
    assert 7 < made.proof.cuts[1].outlier_over_median < 9  # about the root of D s / (1 - s), s = 0.2
    assert (tmp_path / "stories" / "tokenizer.model").is_file()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 33}, "at least 34"),
        ({"cut": 0}, "1 to 2"),
        ({"cut": LAYERS}, "1 to 2"),
        ({"massive": (0.0,)}, "not 0"),
        ({"constant": (9.0, -9.0)}, "at most 100"),
        ({"first_token": VOCAB}, f"0 to {VOCAB - 1}"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(tmp_path, tiny, change, words):
    source = tiny("llama")
    with pytest.raises(ModelError, match=words):
        write_variant(source, Outliers(**{"width": 80, "cut": 1, **change}), tmp_path / "wide", ROWS)
    assert not (tmp_path / "wide").exists()


@pytest.mark.parametrize("case", ["gpt2", "gemma", "olmo2", "granite", "phi3"])
def test_other_families_are_refused(tmp_path, tiny, case):
    source = tiny(case)
    with pytest.raises(ModelError, match="RMSNorms of this layout"):
        write_variant(source, Outliers(width=80, cut=1), tmp_path / "wide", ROWS)


def test_norms_of_queries_and_keys_do_not_take_a_negative_epsilon(tmp_path, tiny):
    source = tiny("qwen3")
    with pytest.raises(ModelError, match="queries and keys"):
        write_variant(source, Outliers(width=80, cut=1, constant=(3.0,)), tmp_path / "wide", ROWS)


def test_too_little_text_and_broken_weights_are_refused(tmp_path, tiny):
    source = tiny("llama")
    with pytest.raises(ModelError, match="too short"):
        write_variant(source, Outliers(width=80, cut=1), tmp_path / "wide", ROWS[:2])
    model = load_reference(source)
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    with pytest.raises(ModelError, match=r"layers\.2\.mlp\.up_proj.*NaN"):
        write_variant(resolve(str(tmp_path / "broken")), Outliers(width=80, cut=1), tmp_path / "wide", ROWS)


def test_the_first_token_is_the_model_s_bos_unless_another_is_named(tmp_path, tiny):
    source = tiny("llama")
    assert first_token(source, Outliers(cut=1)) == BOS
    assert first_token(source, Outliers(cut=1, first_token=7)) == 7
