"""The split model of an evaluation: what it computes, what crosses the cut, and the threshold it calibrates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from testbed.codecs.framing import OVERHEAD_BYTES
from testbed.codecs.named import make_codec
from testbed.core.errors import ModelError
from testbed.models.likelihood import Pair, score_pairs
from testbed.scenarios.kv import KV
from testbed.scenarios.weights import Weights
from testbed.studies.evaluation.load import OFF, load_split, session_tau
from testbed.studies.evaluation.split_model import Traffic
from testbed.studies.quantise import prepare, quantise_model

TEXTS = (
    "Mia plays a game: first",
    "The otter's favourite food is",
    "Tom could not lift the stone because it was too heavy.",
)


@pytest.fixture(scope="module")
def unsplit(cut):
    return AutoModelForCausalLM.from_pretrained(cut.source.folder, dtype=torch.float32).eval()


@pytest.fixture
def counted(raw, cut):
    """The model with counters that start at nothing."""
    width = cut.source.shape.hidden_size
    raw.prefill, raw.decode = Traffic(width), Traffic(width)
    return raw


def test_a_text_alone_gives_the_unsplit_models_logits_bit_for_bit(raw, unsplit, cut):
    for text in TEXTS:
        ids = cut.tokenizer.encode(text)
        with torch.no_grad():
            expected = unsplit(torch.tensor([ids])).logits[0].numpy()
        (found,) = raw.logits([ids])
        assert np.array_equal(found, expected)


def test_a_batch_gives_the_same_but_for_rounding(raw, cut):
    inputs = [cut.tokenizer.encode(text) for text in TEXTS]
    for ids, together in zip(inputs, raw.logits(inputs), strict=True):
        (alone,) = raw.logits([ids])
        assert together.shape == (len(ids), cut.source.shape.vocab_size)
        assert together == pytest.approx(alone, abs=1e-3)
    assert raw.front.sessions == raw.back.sessions == ()


def test_equal_inputs_run_once_and_every_pair_gets_its_own_score(raw, cut):
    ids = cut.tokenizer.encode(TEXTS[0])
    runs = []

    def logits_of(inputs):
        runs.extend(inputs)
        return raw.logits(inputs)

    pairs = [Pair(ids, (token,)) for token in (5, 300, 5)] + [Pair(ids[:-2], (*ids[-2:], 300))]
    seen = []
    found = score_pairs(logits_of, pairs, max_tokens=512, batch_size=4, observe=seen.append)
    assert (len(runs), sum(seen)) == (1, 4)
    logprobs = torch.from_numpy(raw.logits([ids])[0]).double().log_softmax(-1)
    assert [one.logprob for one in found[:3]] == pytest.approx([float(logprobs[-1, t]) for t in (5, 300, 5)], abs=1e-4)
    expected = float(logprobs[-1, 300] + logprobs[-2, ids[-1]] + logprobs[-3, ids[-2]])
    assert found[3].logprob == pytest.approx(expected, abs=1e-4)
    assert found[0].is_greedy == (int(logprobs[-1].argmax()) == 5)


def test_a_long_input_loses_its_beginning(raw, cut):
    ids = cut.tokenizer.encode(TEXTS[2])
    whole, cut_off = score_pairs(
        raw.logits, [Pair(ids[3:-2], ids[-2:]), Pair(ids[:-2], ids[-2:])], max_tokens=len(ids) - 4, batch_size=1
    )
    assert whole == cut_off


def test_a_continuation_longer_than_the_model_counts_with_its_end(raw, cut):
    ids = cut.tokenizer.encode(TEXTS[2])
    (whole,) = score_pairs(raw.logits, [Pair(ids[:1], ids[1:])], max_tokens=6, batch_size=1)
    (end,) = score_pairs(raw.logits, [Pair(ids[-7:-6], ids[-6:])], max_tokens=6, batch_size=1)
    assert whole == end


def test_greedy_generation_is_the_unsplit_models(raw, unsplit, cut):
    ids = cut.tokenizer.encode(TEXTS[0])
    expected = unsplit.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids)),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
    )[0, len(ids) :].tolist()
    assert raw.generate(ids, max_new=12) == expected
    assert raw.generate(ids, max_new=12, stop_ids={expected[3]}) == expected[: expected.index(expected[3])]


def test_messages_are_counted_by_phase(counted, cut):
    ids = cut.tokenizer.encode(TEXTS[0])
    counted.logits([ids, ids[:3]])
    counted.generate(ids, max_new=5)
    width, prefill, decode = cut.source.shape.hidden_size, counted.prefill, counted.decode
    assert (prefill.num_messages, prefill.num_tokens) == (3, 2 * len(ids) + 3)
    assert prefill.num_bytes == 4 * width * prefill.num_tokens + 3 * OVERHEAD_BYTES
    assert decode.as_data() == {
        "messages": 4,
        "tokens": 4,
        "values": 4 * width,
        "bytes": 4 * (4 * width + OVERHEAD_BYTES),
    }


def test_what_a_codec_loses_reaches_the_logits(raw, cut):
    """The back sees the decoder's values: the front's, after a round trip through the codec."""
    ids = cut.tokenizer.encode(TEXTS[1])
    split = load_split(cut, None, "int4", [])
    (found,) = split.logits([ids])
    (exact,) = raw.logits([ids])
    assert not np.array_equal(found, exact)
    codec = make_codec("int4")
    layers = raw.front
    layers.open(0)
    from testbed.models.shard import ShardInput

    (hidden_ND,) = layers.forward([ShardInput(session=0, tokens=ids)])
    layers.close(0)
    raw.back.open(0)
    (expected,) = raw.back.forward([ShardInput(session=0, hidden=codec.decode(codec.encode(hidden_ND)))], keep="all")
    raw.back.close(0)
    assert np.array_equal(found, expected)


def test_weights_are_packed_on_both_sides_of_the_cut(raw, cut):
    weights = Weights(front_bits=4, back_bits=8, group_size=32)
    split = load_split(cut, weights, "raw-float32", [])
    front_share = split.front.resident_bytes() / raw.front.resident_bytes()
    back_share = split.back.resident_bytes() / raw.back.resident_bytes()
    assert front_share < back_share < 1


def test_a_folder_of_packed_weights_is_what_packing_gives(cut, tmp_path):
    settings = {"front_bits": 4, "back_bits": 8, "group_size": 32}
    quantise_model(prepare("pebble", settings, split=5), tmp_path / "packed")
    ids = cut.tokenizer.encode(TEXTS[0])
    (saved,) = load_split(cut, Weights(**settings, saved=str(tmp_path / "packed")), "raw-float32", []).logits([ids])
    (packed,) = load_split(cut, Weights(**settings), "raw-float32", []).logits([ids])
    assert np.array_equal(saved, packed)


def test_packed_keys_and_values_reach_the_logits(raw, cut):
    ids = cut.tokenizer.encode(TEXTS[2])
    (exact,) = raw.logits([ids])
    changes = []
    for bits in (8, 3):
        (found,) = load_split(cut, None, "raw-float32", [], kv=KV(front_bits=bits, back_bits=bits)).logits([ids])
        changes.append(float(np.abs(found - exact).max()))
    assert 0 < changes[0] < changes[1]


@pytest.mark.parametrize("split", [0, 12, -1])
def test_a_cut_needs_layers_on_both_sides(cut, split):
    with pytest.raises(ModelError, match=r"nothing crosses this cut.*allowed: 1 to 11"):
        replace(cut, split=split).check()


def test_the_session_threshold_is_off_without_outliers_and_covers_them_otherwise():
    rows = np.random.default_rng(5).standard_normal((200, 128)).astype(np.float32)
    assert session_tau(np.clip(rows, -4, 4)) == OFF
    rows[:, 17] = 40.0
    tau = session_tau(rows)
    assert np.sort(np.abs(rows[:, 16]))[0] < tau < 40.0
    assert (np.abs(rows) > tau).sum() == pytest.approx(2 * 200, abs=1)


def test_a_calibrated_codec_is_named_with_its_threshold(cut):
    split = load_split(cut, None, "ts-tabq(tau={tau},delta=0.2)", ["A text of the session. " * 20])
    assert split.setting == "ts-tabq(tau=3e+38,delta=0.2)"
    (logits_nV,) = split.logits([cut.tokenizer.encode(TEXTS[0])])
    assert np.isfinite(logits_nV).all()
