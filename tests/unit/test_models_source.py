"""Names to models, and every way a model folder can be wrong: one clear error each, without loading torch."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from testbed.core.errors import ModelError
from testbed.models.families import FAMILIES
from testbed.models.source import known_names, resolve

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 16,
    "max_position_embeddings": 32,
    "eos_token_id": 2,
}
TENSORS = {
    "model.embed_tokens.weight": np.zeros((16, 8), np.float32),
    "model.layers.0.mlp.up_proj.weight": np.zeros((12, 8), np.float32),
    "model.layers.1.mlp.up_proj.weight": np.zeros((12, 8), np.float32),
    "model.norm.weight": np.zeros(8, np.float32),
    "lm_head.weight": np.zeros((16, 8), np.float32),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder whose headers are right (enough to resolve, not to run)."""
    path = tmp_path / "my-model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    save_file(TENSORS, str(path / "model.safetensors"))
    return path


def configure(folder: Path, **changes: object) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))


def test_a_folder_is_found_absolute_or_relative_to_the_base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = resolve(str(folder))
    assert source.has_weights
    assert source.folder == folder
    assert source.shape.num_layers == 2
    assert source.stop_token_ids == (2,)
    assert source.tokenizer_file is None
    assert resolve("my-model", base=folder.parent).folder == folder
    monkeypatch.chdir(folder.parent)
    assert resolve("./my-model", base=Path("/nowhere")).folder == folder


def test_a_folder_with_a_config_alone_is_a_shape(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    source = resolve(str(folder))
    assert (source.shape.num_layers, source.has_weights) == (2, False)
    with pytest.raises(ModelError, match="no weights"):
        source.weights_folder()


def test_generation_config_decides_the_stop_tokens(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 6]}))
    assert resolve(str(folder)).stop_token_ids == (5, 6)


def test_a_tokenizer_in_the_folder_is_found(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(b"")
    assert resolve(str(folder)).tokenizer_file == folder / "tokenizer.model"
    (folder / "tokenizer.json").write_text("{}")
    assert resolve(str(folder)).tokenizer_file == folder / "tokenizer.json"


def test_known_names_are_shapes_without_weights() -> None:
    assert known_names()[0] == "pebble"
    for name in known_names()[1:]:
        source = resolve(name)
        assert not source.has_weights
        assert source.shape.name == name
        with pytest.raises(ModelError, match="no weights"):
            source.weights_folder()


@pytest.mark.parametrize(
    ("name", "nearest"), [("llama-2-7", "llama-2-7b"), ("pebbel", "pebble"), ("gema-2-2b", "gemma-2-2b")]
)
def test_a_mistyped_name_gets_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ModelError) as caught:
        resolve(name)
    assert caught.value.nearest == nearest
    assert caught.value.value == name


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        resolve("./no/such/model")


def test_a_hub_id_that_is_nowhere_is_one_clear_error(tmp_path: Path) -> None:
    """In a process of its own, so that the hub client sees an empty cache and no network."""
    program = (
        "from testbed.models.source import resolve\n"
        "from testbed.core.errors import ModelError\n"
        "try: resolve('nobody/no-model')\n"
        "except ModelError as error: print(error)\n"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "not in the local Hugging Face cache" in run.stdout
    assert "nobody/no-model" in run.stdout


def test_a_cached_hub_repository_is_used(folder: Path, tmp_path: Path) -> None:
    """The hub client's own cache layout, read offline."""
    repository = tmp_path / "hub" / "models--me--mine"
    snapshot = repository / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    program = "from testbed.models.source import resolve; print(resolve('me/mine').folder)"
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(snapshot)


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama",\n oops}')


def _config_list(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _empty_file(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"abc")


def _absurd_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")


def _garbled_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[8:12] = b"\xff\xff\xff\xff"
    path.write_bytes(raw)


def _no_layer(folder: Path) -> None:
    save_file({k: v for k, v in TENSORS.items() if ".1." not in k}, str(folder / "model.safetensors"))


def _no_head(folder: Path) -> None:
    save_file({k: v for k, v in TENSORS.items() if "lm_head" not in k}, str(folder / "model.safetensors"))


def _write_index(folder: Path, part: str, name: str) -> None:
    weight_map = dict.fromkeys(TENSORS, "model.safetensors") | {name: part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _index_file(folder: Path) -> None:
    _write_index(folder, "model-00002-of-00002.safetensors", "lm_head.weight")


def _index_tensor(folder: Path) -> None:
    _write_index(folder, "model.safetensors", "model.layers.7.weight")


def _index_empty(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{}")


@pytest.mark.parametrize(
    ("ruin", "parts"),
    [
        (_no_config, ["my-model", "no config.json"]),
        (_broken_config, ["config.json", "line 2"]),
        (_config_list, ["config.json", "not a JSON object"]),
        (_no_weights, ["no safetensors", "pytorch_model.bin"]),
        (_truncated, ["model.safetensors", "100 bytes are missing"]),
        (_empty_file, ["model.safetensors", "truncated or corrupt"]),
        (_absurd_header, ["model.safetensors", "truncated or corrupt"]),
        (_garbled_header, ["model.safetensors", "corrupt safetensors header"]),
        (_no_layer, ["tensor missing", "model.layers.1.*"]),
        (_no_head, ["tensor missing", "lm_head.weight"]),
        (_index_file, ["index.json", "missing", "model-00002-of-00002.safetensors"]),
        (_index_tensor, ["index.json", "model.layers.7.weight"]),
        (_index_empty, ["index.json", "weight_map"]),
    ],
)
def test_a_broken_folder_is_one_clear_error(folder: Path, ruin: Callable[[Path], None], parts: list[str]) -> None:
    ruin(folder)
    with pytest.raises(ModelError) as caught:
        resolve(str(folder))
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unsupported_family_lists_those_that_are(folder: Path) -> None:
    configure(folder, model_type="llama4")
    with pytest.raises(ModelError) as caught:
        resolve(str(folder))
    assert caught.value.allowed == sorted(FAMILIES)
    assert caught.value.nearest == "llama"
    configure(folder, model_type=None)
    with pytest.raises(ModelError, match="unsupported model family"):
        resolve(str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_local_experts": 8}, "mixture-of-experts"),
        ({"num_kv_shared_layers": 1}, "share one KV cache"),
        ({"quantization_config": {"bits": 4}}, "pre-quantised"),
        ({"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True}, "attention scale"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "not causal"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"vocab_size": "many"}, "vocab_size"),
    ],
)
def test_unsupported_variants_and_senseless_sizes(folder: Path, changes: dict[str, object], message: str) -> None:
    configure(folder, **changes)
    with pytest.raises(ModelError, match=message):
        resolve(str(folder))


def test_names_shapes_and_tokenizers_load_no_torch() -> None:
    program = (
        "import sys\n"
        "import testbed.models.source, testbed.models.tokenizer, testbed.models.sampling_config\n"
        "testbed.models.source.resolve('llama-2-7b')\n"
        "print([name for name in ('torch', 'transformers', 'huggingface_hub') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
