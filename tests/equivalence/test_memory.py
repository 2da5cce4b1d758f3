"""A shard holds what the byte laws say and never touches the other side's tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open as real_safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from testbed.models import loading
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource, from_folder

from .tiny_models import CASES, LAYERS, PROMPT, WINDOW, pipeline, save_tiny, step

Tiny = Callable[[str], ModelSource]


@pytest.fixture(scope="module")
def mid_size(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """A Llama of 5.7 M weights (23 MB): large enough that pages and layers do not blur."""
    folder = tmp_path_factory.mktemp("mid")
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=2000,
    )
    torch.manual_seed(3)
    LlamaForCausalLM(config).save_pretrained(folder)
    return from_folder(folder)


@pytest.mark.parametrize("case", CASES)
def test_resident_weights_meet_the_law_at_every_cut(tiny: Tiny, case: str) -> None:
    """Bytes of the tensors that are there against the formula; rotary tables and scales are the only extra."""
    source = tiny(case)
    for cut in range(LAYERS + 1):
        for shard in pipeline(source, [cut]):
            law = source.shape.weight_bytes(shard.start, shard.stop, 32)
            assert law <= shard.resident_bytes() <= law * 1.05


def _resident_file_bytes(path: Path) -> int:
    """Bytes of a mapped file that this process has in memory, as the kernel counts them."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first and not first.endswith(":"):
            inside = line.endswith(str(path))
        elif inside and first == "Rss:":
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc/self/smaps")
@pytest.mark.parametrize("cut", [1, 2, 4])
def test_process_memory_of_a_front_meets_the_law(mid_size: ModelSource, cut: int) -> None:
    """What the kernel counts as resident of the weight file after a prompt of every token id: law within 5 %."""
    path = mid_size.weights_folder() / "model.safetensors"
    assert _resident_file_bytes(path) == 0
    front = Shard(mid_size, start=0, stop=cut)
    front.open(1)
    front.forward([ShardInput(session=1, tokens=list(range(2000)))])
    law = mid_size.shape.weight_bytes(0, cut, 32)
    assert abs(_resident_file_bytes(path) - law) <= 0.05 * law
    assert abs(front.resident_bytes() - law) <= 0.05 * law


def test_kv_cache_meets_the_law_and_is_given_back(mid_size: ModelSource) -> None:
    front, back = pipeline(mid_size, [2])
    for shard in (front, back):
        for session, _ in enumerate(("a", "b")):
            shard.open(session)
    step([front, back], {0: [5] * 40, 1: [6] * 3}, batched=True)
    shape = mid_size.shape
    assert front.kv_bytes() == shape.kv_bytes(43, 0, 2, 32)
    assert back.kv_bytes() == shape.kv_bytes(43, 2, 6, 32)
    held = 16 * (1 + 3 + 1)  # a padding block, 40 tokens in three blocks, 3 tokens in one
    assert front.kv_reserved_bytes() == shape.kv_bytes(held, 0, 2, 32)
    front.close(0)
    assert front.kv_bytes() == shape.kv_bytes(3, 0, 2, 32)
    front.open(2)
    front.forward([ShardInput(session=2, tokens=[7] * 48)])
    assert front.kv_reserved_bytes() == shape.kv_bytes(held, 0, 2, 32)  # the freed blocks served again


def test_sliding_layers_keep_no_more_than_the_window(tiny: Tiny) -> None:
    shard = Shard(tiny("mistral sliding"), start=0, stop=LAYERS)
    shard.open(1)
    shard.forward([ShardInput(session=1, tokens=PROMPT)])
    for token in range(3, 53):
        shard.forward([ShardInput(session=1, tokens=[token])])
    assert shard.kv_bytes() == shard.source.shape.kv_bytes(WINDOW - 1, 0, LAYERS, 32)
    assert shard.kv_reserved_bytes() <= shard.source.shape.kv_bytes(16 * 4, 0, LAYERS, 32)


@pytest.mark.parametrize("case", CASES)
def test_only_own_tensors_are_read(tiny: Tiny, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    class Recording:
        def __init__(self, *args: object, **kwargs: object) -> None:
            self._open = real_safe_open(*args, **kwargs)

        def __enter__(self) -> Recording:
            self._file = self._open.__enter__()
            return self

        def __exit__(self, *error: object) -> None:
            self._open.__exit__(*error)

        def get_tensor(self, name: str) -> torch.Tensor:
            read.append(name)
            return self._file.get_tensor(name)

    monkeypatch.setattr(loading, "safe_open", Recording)
    source = tiny(case)
    with real_safe_open(str(source.weights_folder() / "model.safetensors"), framework="pt") as file:
        stored = set(file.keys())
    for cut in range(1, LAYERS):
        keys = []
        for start, stop in ((0, cut), (cut, LAYERS)):
            read.clear()
            Shard(source, start=start, stop=stop)
            assert len(read) == len(set(read))  # each tensor once
            keys.append(set(read))
        front, back = keys
        assert front | back == stored
        assert front & back == ({_token_table(stored)} if source.shape.tied_embeddings else set())
        assert {_layer(name) for name in front} == {None, *range(cut)}
        assert {_layer(name) for name in back} == {None, *range(cut, LAYERS)}
        assert not any(part in name for name in front if _layer(name) is None for part in OUTPUT_PARTS)
        assert not any(part in name for name in back if _layer(name) is None for part in POSITION_PARTS)


OUTPUT_PARTS = ("norm", "ln_f", "lm_head", "embed_out", "project_out")
POSITION_PARTS = ("wpe", "embed_positions", "project_in")


def _layer(name: str) -> int | None:
    found = re.search(r"\.(?:layers|h)\.(\d+)\.", name)
    return None if found is None else int(found[1])


def _token_table(names: set[str]) -> str:
    return next(name for name in names if re.search(r"(embed_tokens|wte|embed_in)\.weight$", name))


def _poison(path: Path, spare: Callable[[str], bool]) -> None:
    """Overwrites with NaN bytes every tensor of a safetensors file that ``spare`` does not keep."""
    raw = bytearray(path.read_bytes())
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    for name, entry in header.items():
        if name != "__metadata__" and not spare(name):
            start, stop = (8 + length + offset for offset in entry["data_offsets"])
            raw[start:stop] = b"\xff" * (stop - start)
    path.write_bytes(raw)


@pytest.mark.parametrize("case", ["llama", "gemma3_text sliding", "gpt2", "opt"])
def test_a_front_does_not_notice_that_the_back_is_ruined(tiny: Tiny, tmp_path: Path, case: str) -> None:
    whole, source = tiny(case), save_tiny(case, tmp_path)
    own = {"embed_tokens", "embed_positions", "wte", "wpe"}
    _poison(tmp_path / "model.safetensors", lambda name: ".0." in name or bool(own & set(name.split("."))))
    expected, got = (pipeline(item, [1])[0] for item in (whole, source))
    outputs = []
    for front in (expected, got):
        front.open(1)
        outputs.append(front.forward([ShardInput(session=1, tokens=PROMPT)])[0])
    assert np.array_equal(*outputs)
    back = pipeline(source, [1])[1]
    back.open(1)
    assert np.isnan(back.forward([ShardInput(session=1, hidden=outputs[0])])[0]).any()


def test_a_back_does_not_notice_that_the_front_is_ruined(tiny: Tiny, tmp_path: Path) -> None:
    whole, source = tiny("llama"), save_tiny("llama", tmp_path)
    _poison(tmp_path / "model.safetensors", lambda name: ".0." not in name and "embed_tokens" not in name)
    hidden = np.random.default_rng(2).normal(size=(5, 32)).astype(np.float32)
    outputs = []
    for item in (whole, source):
        back = Shard(item, start=1, stop=LAYERS)
        back.open(1)
        outputs.append(back.forward([ShardInput(session=1, hidden=hidden)])[0])
    assert np.array_equal(*outputs)
