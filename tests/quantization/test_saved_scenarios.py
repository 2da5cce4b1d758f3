"""Packed weights that a command made once: the runs that use them, and what they refuse. Text read by default."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from testbed.actors.weight_plan import CORPUS_TEXTS, calibration_tokens, check_saved, weight_config
from testbed.core.errors import ModelError, ScenarioError
from testbed.models.fingerprint import weights_fingerprint
from testbed.models.pebble.corpus import training_texts
from testbed.models.pebble.tasks import build_items
from testbed.models.pebble.world import build_world
from testbed.models.source import ModelSource, from_folder, resolve
from testbed.models.tokenizer import load_tokenizer
from testbed.quantization.settings import read_settings
from testbed.run import prepare
from testbed.scenarios.load import load_scenario
from testbed.scenarios.weights import Weights
from testbed.studies import quantise
from tests.equivalence.tiny_models import LAYERS
from tests.unit.tiny_scenario import call

SPLIT = 1
SETTINGS = {"front_bits": 4, "back_bits": 8, "group_size": 32}


@pytest.fixture(scope="module")
def source(tiny: Callable[[str], ModelSource]) -> ModelSource:
    return tiny("llama")


def made(source: ModelSource, folder: Path, split: int = SPLIT, **settings: Any) -> Weights:
    """A packed folder, and the weights block of a scenario that uses it."""
    packing = quantise.prepare(str(source.folder), SETTINGS | settings, split=split)
    return quantise.quantise_model(packing, folder).weights


def test_the_folder_says_what_it_holds(source: ModelSource, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    packing = quantise.prepare(str(source.folder), SETTINGS, split=SPLIT)
    packed = quantise.quantise_model(packing, tmp_path / "q", observe=lambda *told: seen.append(told))
    settings = read_settings(tmp_path / "q")
    assert settings.config == replace(weight_config(packing.weights), split=SPLIT)
    assert len(settings.matrices) == packed.num_matrices == 7 * LAYERS
    assert settings.origin is not None
    assert settings.origin.fingerprint == weights_fingerprint(source)
    assert packed.packed_bytes < packed.plain_bytes
    assert seen == [("packing matrices", done, 7 * LAYERS + 2) for done in range(1, 7 * LAYERS + 3)]
    with pytest.raises(ModelError, match="something is there already"):
        quantise.quantise_model(packing, tmp_path / "q")


def test_what_fits_is_taken(source: ModelSource, tmp_path: Path) -> None:
    """At its own cut; at any cut where front and back are alike; without a folder there is nothing to check."""
    check_saved(made(source, tmp_path / "two"), source, "float32", [SPLIT])
    check_saved(made(source, tmp_path / "one", back_bits=4), source, "float32", range(LAYERS + 1))
    check_saved(Weights(**SETTINGS), source, "bfloat16", [2])


def test_what_does_not_fit_is_refused(source: ModelSource, tiny: Callable[[str], ModelSource], tmp_path: Path) -> None:
    weights = made(source, tmp_path / "q")

    def refused(expected: str, own: ModelSource = source, dtype: str = "float32", cut: int = SPLIT, **own_keys: Any):
        with pytest.raises(ScenarioError, match=rf"weights\.saved: {expected}"):
            check_saved(weights.model_copy(update=own_keys), own, dtype, [cut])

    refused(r"the saved weights were made with another front\.bits \(got 4\); allowed: 3", front_bits=3)
    refused(r"the saved weights were made with another back_inputs\.bits \(got .null.\)", back_activation_bits=4)
    refused(r"the saved weights were made with another method \(got 'rtn'\); allowed: gptq", method="gptq")
    refused(r"the saved weights change from front to back at layer 1 \(got 'a cut at 2'\); allowed: 1", cut=2)
    refused(r"the saved weights were read in another dtype \(got 'float32'\); allowed: bfloat16", dtype="bfloat16")
    refused("the saved weights are another model's", own=tiny("qwen2"))
    with pytest.raises(ScenarioError, match="cannot read the settings of packed weights"):
        check_saved(weights.model_copy(update={"saved": str(tmp_path / "nowhere")}), source, "float32", [SPLIT])
    told = json.loads((tmp_path / "q" / "quantization.json").read_text())
    (tmp_path / "q" / "quantization.json").write_text(json.dumps(told | {"config": {"method": "rtn"}}))
    refused_file = rf"{tmp_path}/q/quantization\.json: weights\.saved: broken settings of packed weights"
    with pytest.raises(ScenarioError, match=refused_file):
        check_saved(weights, source, "float32", [SPLIT])


def test_a_fingerprint_tells_weights_apart(source: ModelSource, tmp_path: Path) -> None:
    """The same for a copy; another once a single matrix was trained on."""
    assert source.folder is not None
    copy = from_folder(shutil.copytree(source.folder, tmp_path / "copy"))
    assert weights_fingerprint(copy) == weights_fingerprint(source)
    tensors = load_file(tmp_path / "copy" / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] += 1e-3
    save_file(tensors, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
    assert weights_fingerprint(copy) != weights_fingerprint(source)


def _run(folder: Path, *overrides: str) -> tuple[dict[str, Any], str]:
    options = [item for override in overrides for item in ("-o", override)]
    short = ("fleet.0.count=1", "workload.output_tokens.value=4", "weights.group_size=32")
    options += [item for override in short for item in ("-o", override)]
    done = call("run", "smoke", *options, "--out", folder)
    assert done.code == 0, done.err
    return json.loads((folder / "summary.json").read_text()), done.out


def test_a_run_with_saved_weights_is_the_run_that_packs_them_itself(tmp_path: Path) -> None:
    """Same answers, same logits to the last bit; the text was read once, when the folder was made."""
    text = " ".join(training_texts(40))
    (tmp_path / "text.txt").write_text(text)
    asked = ("--method", "gptq", "--front-bits", "3", "--back-bits", "4", "--group-size", "32", "--split", "6")
    options = ("--calibration", tmp_path / "text.txt", "--output", tmp_path / "q", "--json")
    done = call("model", "quantise", "--model", "pebble", *asked, *options)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["num_tokens"] > 500
    keys = ("weights.method=gptq", "weights.front_bits=3", "weights.back_bits=4")
    loaded, out = _run(tmp_path / "loaded", *keys, f"weights.saved={tmp_path / 'q'}")
    packed, packed_out = _run(tmp_path / "packed", *keys, f"weights.calibration=[{json.dumps(text)}]")
    for name in ("event_digest", "quality"):
        assert loaded[name] == packed[name]
    assert loaded["quality"]["max_logit_difference"] > 0.1
    assert loaded["calibration"] is None
    assert packed["calibration"] == {"text": "the scenario's texts", "num_tokens": told["num_tokens"]}
    answers = [line for line in out.splitlines() if line.startswith("answer")]
    assert answers
    assert answers == [line for line in packed_out.splitlines() if line.startswith("answer")]
    assert "calibrated" in packed_out
    assert "calibrated" not in out


def test_methods_read_the_shipped_corpus_where_nobody_names_a_text() -> None:
    options = ["weights.method=gptq", "weights.front_bits=4"]
    tokenizer = load_tokenizer(resolve("pebble"))
    expected = tuple(tuple(tokenizer.encode(text)) for text in training_texts(CORPUS_TEXTS))
    assert prepare(load_scenario("smoke", overrides=options)).calibration == expected
    assert prepare(load_scenario("smoke", overrides=["weights.front_bits=4"])).calibration == ()
    modelled = prepare(load_scenario("smoke", overrides=[*options, "fleet.0.compute=modelled"]))
    assert modelled.calibration == ()


def test_the_shipped_text_asks_nothing_that_the_tasks_ask() -> None:
    texts = training_texts(CORPUS_TEXTS)
    assert texts == training_texts(CORPUS_TEXTS)
    assert len(set(texts)) > 200
    for item in build_items(build_world(), per_kind=200):
        answered = item.context + item.choices[item.gold]
        assert not any(answered in text for text in texts)


class _Deaf:
    """A tokenizer without capitals."""

    eos_id = None
    vocab_size = 30

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text.lower()]

    def decode(self, ids: Any) -> str:
        return "".join(map(chr, ids))


def test_text_that_the_model_can_not_write_is_refused_unless_it_is_the_users() -> None:
    with pytest.raises(ScenarioError, match=r"calibration: the model's tokenizer can't write pebble's"):
        calibration_tokens([], _Deaf(), num_shipped=4)
    assert calibration_tokens(["Own"], _Deaf(), num_shipped=4) == [[ord(letter) for letter in "own"]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--front-bits", "7"], "front_bits: not one of the choices (got 7)"),
        ([], "nothing is to be packed; allowed: --front-bits, --back-bits, or both"),
        (["--front-bits", "4", "--split", "13"], "split layer outside model pebble (got 13)"),
        (["--front-bits", "4", "--model", "llama-2-7b"], "model llama-2-7b is known by its shape only"),
        (["--front-bits", "4", "--group-size", "128"], "weights.group_size: the group is longer than a row"),
        (["--front-bits", "4", "-o", "sized=3"], "sized: unknown key"),
        (["--front-bits", "4", "-o", "saved=x"], "saved: this makes such a folder"),
        (["--front-bits", "4", "--method", "gtpq"], "method: unknown quantiser (got 'gtpq')"),
        (["--front-bits", "4", "--calibration", "TEXT"], "--calibration: rtn reads no text"),
        (
            ["--front-bits", "4", "--method", "gptq", "--calibration", "TEXT"],
            "weights.calibration: the calibration ",
        ),
    ],
)
def test_what_can_not_be_packed(tmp_path: Path, options: list[str], expected: str) -> None:
    (tmp_path / "text.txt").write_text("Too short.")
    given = [str(tmp_path / "text.txt") if item == "TEXT" else item for item in options]
    if "--split" not in given:
        given += ["--split", "6"]
    if "--model" not in given:
        given += ["--model", "pebble"]
    done = call("model", "quantise", *given, "--output", tmp_path / "q")
    assert done.code == 2
    assert done.err.startswith(f"error: {expected}")
    assert not (tmp_path / "q").exists()


def test_saved_weights_bring_their_own_calibration(tmp_path: Path) -> None:
    done = call("validate", "smoke", "-o", "weights={method: gptq, front_bits: 4, saved: here, calibration: [a]}")
    assert done.code == 2
    assert "weights.calibration: saved weights were calibrated when they were made" in done.err


def test_threads_are_as_they_were_afterwards(source: ModelSource, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    made(source, tmp_path / "q")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
