"""Tokenizers against golden ids and small files with known content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from testbed.core.errors import ModelError
from testbed.models.source import ModelSource, resolve
from testbed.models.tokenizer import load_tokenizer

VOCAB = {"<s>": 0, "</s>": 1, "<unk>": 2, "a": 3, "b": 4, "c": 5}
SHAPE_ONLY = resolve("llama-2-7b")


def write_json_tokenizer(folder: Path, *, adds_bos: bool, **config: object) -> Path:
    """A word tokenizer over {a, b, c}, with or without a post-processor that adds BOS."""
    tokenizer = Tokenizer(models.WordLevel(VOCAB, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("adds_bos", "config", "expected"),
    [
        (True, {}, [0, 3, 5]),
        (False, {}, [3, 5]),
        (False, {"bos_token": "<s>", "add_bos_token": True}, [0, 3, 5]),
        (True, {"bos_token": {"content": "<s>"}, "add_bos_token": False}, [3, 5]),
        (True, {"bos_token": "<s>", "add_bos_token": True}, [0, 3, 5]),
    ],
)
def test_json_tokenizer_follows_the_models_bos_convention(
    tmp_path: Path, adds_bos: bool, config: dict[str, object], expected: list[int]
) -> None:
    tokenizer = load_tokenizer(SHAPE_ONLY, write_json_tokenizer(tmp_path, adds_bos=adds_bos, **config))
    assert tokenizer.encode("a c") == expected
    assert tokenizer.decode(expected) == "a c"
    assert tokenizer.vocab_size == 6


def test_end_of_text_comes_from_the_tokenizer_then_the_model(tmp_path: Path) -> None:
    path = write_json_tokenizer(tmp_path, adds_bos=False)
    assert load_tokenizer(SHAPE_ONLY, path).eos_id is None
    write_json_tokenizer(tmp_path, adds_bos=False, eos_token="</s>")
    assert load_tokenizer(SHAPE_ONLY, tmp_path).eos_id == 1


def test_sentencepiece_of_stories260k_gives_its_golden_ids(data_dir: Path) -> None:
    tokenizer = load_tokenizer(_stories(data_dir), data_dir / "stories260K" / "tok512.model")
    assert tokenizer.encode("Once upon a time") == [1, 403, 407, 261, 378]
    assert tokenizer.decode([1, 403, 407, 261, 378, 2]) == "Once upon a time"
    assert (tokenizer.eos_id, tokenizer.vocab_size) == (2, 512)
    assert load_tokenizer(_stories(data_dir), data_dir / "stories260K").encode("Once") == tokenizer.encode("Once")


def test_sentencepiece_of_llama2_gives_its_well_known_ids(data_dir: Path) -> None:
    tokenizer = load_tokenizer(SHAPE_ONLY, data_dir / "tokenizers" / "tokenizer.model")
    assert tokenizer.encode("Hello world") == [1, 15043, 3186]
    assert tokenizer.vocab_size == 32000


def test_a_model_without_a_tokenizer_says_what_to_do(data_dir: Path) -> None:
    with pytest.raises(ModelError, match=r"no tokenizer.*token ids"):
        load_tokenizer(_stories(data_dir))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_broken_tokenizer_is_one_clear_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("no tokenizer at all")
    with pytest.raises(ModelError, match="broken") as caught:
        load_tokenizer(SHAPE_ONLY, tmp_path)
    assert caught.value.file == str(tmp_path / name)


def test_a_path_with_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no tokenizer here"):
        load_tokenizer(SHAPE_ONLY, tmp_path / "absent")


def _stories(data_dir: Path) -> ModelSource:
    return resolve(str(data_dir / "stories260K" / "hf"))
