"""The rate-distortion study, against the library's own model with the codec in a hook, and against brute force."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from testbed.cli import app
from testbed.codecs.named import make_codec
from testbed.models.pebble.evaluate import SHIPPED, load_model
from testbed.models.pebble.scoring import score_items
from testbed.models.source import resolve
from testbed.results.pareto import front, pareto, winners
from testbed.studies.rate_distortion.crossing import split_inputs
from testbed.studies.rate_distortion.grid import GRIDS, Setting, named_settings
from testbed.studies.rate_distortion.study import POINTS_FILE, Study, read_points, run_study
from testbed.studies.rate_distortion.yardstick import Yardstick, choice_items, make_yardstick

CUT = 6
PER_KIND = 5


@pytest.fixture(scope="module")
def pebble():
    return resolve("pebble")


@pytest.fixture(scope="module")
def yardstick(pebble):
    return make_yardstick(pebble, text=None, tokenizer_file=None, num_tokens=150, per_kind=PER_KIND)


@pytest.fixture(scope="module")
def inputs(pebble, yardstick):
    return split_inputs(pebble, CUT, yardstick)


@pytest.fixture
def study(pebble, yardstick):
    settings = named_settings(["int4", "tabq(delta=0.3)", "tabq(delta=0.3,entropy=zstd)"])
    return Study(source=pebble, yardstick=yardstick, cuts=[CUT], settings=settings, phases=["prefill", "decode"])


def hooked(model, codec):
    """Inside, every text's hidden states at the cut go through the codec as one message."""

    def replace(module, given, hidden_BTD):
        made = codec.decode(codec.encode(hidden_BTD[0].numpy()))
        return torch.from_numpy(made)[None]

    return model.model.layers[CUT - 1].register_forward_hook(replace)


def text_logprobs(model, rows):
    with torch.no_grad():
        return [model(torch.tensor([row])).logits[0].double().log_softmax(-1) for row in rows]


def test_damage_is_what_the_library_s_model_shows_with_the_codec_in_a_hook(inputs, yardstick):
    model, _ = load_model(SHIPPED)
    rows = yardstick.inputs[: len(yardstick.targets)]
    before = text_logprobs(model, rows)
    codec = make_codec("uniform(bits=3)")
    handle = hooked(model, codec)
    after = text_logprobs(model, rows)
    handle.remove()
    kl = sum(
        float(torch.nn.functional.kl_div(one, other, reduction="sum", log_target=True))
        for one, other in zip(after, before, strict=True)
    )
    nats = sum(
        float(torch.nn.functional.nll_loss(one, torch.tensor(targets), reduction="sum"))
        for one, targets in zip(after, yardstick.targets, strict=True)
    )
    count = sum(map(len, yardstick.targets))
    crossed = inputs.cross("uniform(bits=3)", "prefill")
    found = inputs.damage(crossed.hidden)
    assert found["kl_nats"] == pytest.approx(kl / count, rel=1e-3)
    assert found["kl_nats"] > 1e-3
    assert found["perplexity"] == pytest.approx(np.exp(nats / count), rel=1e-4)
    same = sum(int((one.argmax(-1) == other.argmax(-1)).sum()) for one, other in zip(after, before, strict=True))
    assert found["agreement"] == pytest.approx(same / count, abs=1.5 / count)


def test_choices_are_scored_as_on_the_model_card(inputs):
    items = choice_items(PER_KIND)
    scored = score_items(*load_model(SHIPPED), items)
    inputs.damage(inputs.hidden)
    for sums, one in zip(inputs.before.choices, scored, strict=True):
        assert sums == pytest.approx(one.logprobs, abs=1e-4)
    right = sum(one.chosen == item.gold for one, item in zip(scored, items, strict=True))
    assert inputs.damage(inputs.hidden)["accuracy"] == right / len(items)


def test_a_lossless_codec_does_no_damage(inputs):
    found = inputs.damage(inputs.cross("raw-float32", "decode").hidden)
    assert (found["kl_nats"], found["agreement"], found["flip_rate"]) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_every_byte_of_every_message_is_counted_once(inputs, phase):
    codec = make_codec("int4")
    traffic = inputs.cross("int4", phase).traffic
    lengths = [len(hidden) for hidden in inputs.hidden]
    messages = lengths if phase == "prefill" else [1] * sum(lengths)
    assert traffic.total_bytes == sum(codec.nbytes(n, 96) for n in messages)
    assert (traffic.messages, traffic.tokens, traffic.values) == (len(messages), sum(lengths), 96 * sum(lengths))
    assert traffic.frame_bytes == 24 * len(messages)
    assert traffic.side_bytes == 4 * sum(lengths)
    sparse = inputs.cross("ts-tabq(per_row=2,entropy=rans)", phase).traffic
    assert sparse.sparse_bytes > 0
    assert sparse.frame_bytes == 24 * len(messages)


def test_entropy_coders_change_bytes_and_nothing_else(inputs):
    packed, coded = (inputs.cross(f"tabq(delta=0.3,entropy={coder})", "prefill") for coder in ("none", "rans"))
    assert all(np.array_equal(one, other) for one, other in zip(packed.hidden, coded.hidden, strict=True))
    assert coded.traffic.total_bytes < packed.traffic.total_bytes


def test_yardstick_inputs_are_all_different_and_texts_are_not_those_that_calibrate(yardstick):
    assert len(set(yardstick.inputs)) == len(yardstick.inputs)
    texts = {(*ids, targets[-1]) for ids, targets in zip(yardstick.inputs, yardstick.targets, strict=False)}
    assert not texts & set(yardstick.calibration)
    assert all(ids[1:] == targets[:-1] for ids, targets in zip(yardstick.inputs, yardstick.targets, strict=False))


def test_a_model_that_does_not_know_pebble_is_asked_no_items(data_dir):
    source = resolve(str(data_dir / "stories260K" / "hf"))
    made = make_yardstick(
        source,
        text=data_dir / "tinystories" / "tinystories_2MiB.txt",
        tokenizer_file=data_dir / "stories260K" / "tok512.model",
        num_tokens=300,
        per_kind=5,
    )
    assert made.gold == ()
    assert isinstance(made, Yardstick)
    assert sum(map(len, made.targets)) >= 256


@pytest.mark.parametrize("name", GRIDS)
def test_every_setting_of_a_grid_is_a_codec_and_comes_once(name):
    settings = GRIDS[name]()
    assert len({one.codec for one in settings}) == len(settings)
    assert all(isinstance(one, Setting) for one in settings)


def point(bits, kl, family="a", split=1):
    return {
        "split": split,
        "phase": "prefill",
        "family": family,
        "codec": f"{family}{bits}",
        "failed": None,
        "bits_per_value": bits,
        "kl_nats": kl,
        "accuracy": None,
    }


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25))
def test_a_front_holds_what_nothing_else_beats(pairs):
    points = [point(bits, kl) for bits, kl in pairs]
    best = {(one["bits_per_value"], one["kl_nats"]) for one in pareto(points)}
    unbeaten = {
        (bits, kl)
        for bits, kl in pairs
        if not any(other != (bits, kl) and other[0] <= bits and other[1] <= kl for other in pairs)
    }
    assert best == unbeaten
    assert len(pareto(points)) == len(best)


def test_winners_are_the_fewest_bits_within_a_limit_and_the_next_family():
    points = [point(3, 0.05, "a"), point(4, 0.002, "a"), point(5, 0.002, "b"), point(6, 0.0005, "b")]
    found = {one["limit"]: one for one in winners(points)}
    assert (found["KL <= 0.1"]["codec"], found["KL <= 0.1"]["next_codec"]) == ("a3", "b5")
    assert (found["KL <= 0.003"]["codec"], found["KL <= 0.003"]["next_codec"]) == ("a4", "b5")
    assert (found["KL <= 0.001"]["codec"], found["KL <= 0.001"]["next_codec"]) == ("b6", None)
    assert (
        front([*points, {**point(1, None), "failed": None}, {**point(1, 0.0), "failed": "broken"}])[0]["codec"] == "a3"
    )


def test_an_interrupted_study_goes_on_and_ends_as_one_that_was_not(tmp_path, study):
    straight = run_study(study, tmp_path / "straight", lambda *_: None)
    seen = []

    def stop_at_the_third(doing, num_done, num_all):
        seen.append((doing, num_done, num_all))
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path / "stopped", stop_at_the_third)
    assert len(read_points(tmp_path / "stopped")[1]) == 3
    with (tmp_path / "stopped" / POINTS_FILE).open("a") as file:
        file.write('{"split": 6, "fam')  # as a crash in the middle of a line leaves it
    assert run_study(study, tmp_path / "stopped", lambda *_: None) == straight
    assert read_points(tmp_path / "stopped")[1] == straight
    with (tmp_path / "stopped" / "points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["codec"] for row in rows] == [one["codec"] for one in straight]
    assert len(straight) == 1 + 3 * 2
    assert seen[-1] == ("cut 6", 3, 7)


def test_on_the_outlier_fixture_few_bits_need_the_threshold(wide_pebble):
    """Uniform int3 breaks where TS + TAB-Q, in fewer bits, keeps every answer (at d = 1024, cut 6)."""
    made = make_yardstick(wide_pebble.variant, text=None, tokenizer_file=None, num_tokens=100, per_kind=4)
    inputs = split_inputs(wide_pebble.variant, CUT, made)
    cheap = inputs.cross("ts-tabq(delta=0.35,per_row=2,entropy=rans)", "prefill")
    uniform = inputs.cross("uniform(bits=3)", "prefill")
    assert cheap.traffic.total_bytes < uniform.traffic.total_bytes
    kept, broken = inputs.damage(cheap.hidden), inputs.damage(uniform.hidden)
    assert kept["flip_rate"] == 0
    assert kept["kl_nats"] < 0.002
    assert broken["kl_nats"] > 0.1


def invoke(*words):
    return CliRunner().invoke(app, ["study", "rate-distortion", "--model", "pebble", *map(str, words)])


def test_the_command_writes_points_fronts_and_plots_and_prints_who_wins(tmp_path):
    folder = tmp_path / "study"
    options = ("--output", folder, "--items", 2, "--tokens", 64, "--codec", "int8", "--codec", "tabq(delta=0.3)")
    done = invoke(*options, "--phases", "prefill")
    assert done.exit_code == 0, done.output
    assert "cut 6, prefill: fewest bits within a limit" in done.stdout
    assert "tabq(delta=0.3)" in done.stdout
    root = ET.parse(folder / "front-cut6-prefill.svg").getroot()
    assert root.tag.endswith("svg")
    assert {one["codec"] for one in json.loads((folder / "front.json").read_text())["front"]} == {
        "int8",
        "tabq(delta=0.3)",
    }
    again = invoke(*options, "--phases", "prefill", "--tokens", 400)
    assert again.exit_code == 2
    assert "another --output" in again.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--splits", "0"], "--splits: nothing crosses this cut (got 0); allowed: 1 to 11"),
        (["--splits", "x"], "not whole numbers"),
        (["--codec", "tabk"], "did you mean 'tabq'?"),
        (["--phases", "prefil"], "unknown phase"),
    ],
)
def test_bad_input_is_one_line(tmp_path, words, expected):
    done = invoke("--output", tmp_path / "made", *words)
    assert done.exit_code == 2
    assert expected in done.output
    assert len(done.output.splitlines()) == 1
