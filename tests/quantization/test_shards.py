"""Packed shards of every family: the law's bytes, one change point, the same answer split, whole and reloaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open as real_safe_open

from testbed.actors.weights import WeightLaw
from testbed.core.errors import ModelError
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource, from_folder
from testbed.quantization import saved
from testbed.quantization.apply import quantise_module
from testbed.quantization.calibrate import Statistics, collect
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import ActivationFormat, WeightFormat, format_of
from testbed.quantization.packed import PackedLinear
from testbed.quantization.saved import load_quantised, save_quantised
from testbed.quantization.targets import find_targets
from tests.equivalence.tiny_models import CASES, LAYERS, PROMPT
from tests.quantization.stories import read, stories

CUT = 1
OPSC = WeightConfig(
    split=CUT,
    front=WeightFormat(bits=3, group_size=32),
    back=WeightFormat(bits=6, symmetric=True),
    embedding=WeightFormat(bits=8),
    head=WeightFormat(bits=5),
)
OUTLIERS = {"atom": 8}
TEXT = [[(7 * place + 3 * line) % 96 for place in range(40)] for line in range(3)]


@pytest.fixture(scope="module", params=CASES)
def source(request: Any, tiny: Callable[[str], ModelSource]) -> ModelSource:
    return tiny(request.param)


@pytest.fixture(scope="module")
def llama(tiny: Callable[[str], ModelSource]) -> ModelSource:
    return tiny("llama")


def shard_of(source: ModelSource, start: int, stop: int) -> Shard:
    return Shard(source, start=start, stop=stop)


def unpacked(source: ModelSource, start: int, stop: int) -> Shard:
    """A shard that nobody changes."""
    assert source.folder is not None
    return _unpacked(source.folder, start, stop)


@cache
def _unpacked(folder: Path, start: int, stop: int) -> Shard:
    return shard_of(from_folder(folder), start, stop)


def extra_bytes(source: ModelSource, start: int, stop: int) -> int:
    """Rotary tables and Gemma's scale, which no law counts."""
    return sum(item.nbytes for item in unpacked(source, start, stop).module.buffers())


def packed(source: ModelSource, start: int, stop: int, config: WeightConfig = OPSC) -> Shard:
    shard = shard_of(source, start, stop)
    quantise_module(shard.module, config, first_layer=start)
    return shard


def answer(shards: list[Shard], tokens: list[int]) -> np.ndarray:
    """Logits of the last token after a prefill and one decode step."""
    for shard in shards:
        shard.open(1)
    for part in (tokens[:-1], tokens[-1:]):
        item = ShardInput(session=1, tokens=part)
        for shard in shards:
            (out,) = shard.forward([item])
            item = ShardInput(session=1, hidden=out)
    for shard in shards:
        shard.close(1)
    return out


def calibrated(source: ModelSource) -> Statistics:
    whole = shard_of(source, 0, LAYERS)

    def read() -> None:
        for session, tokens in enumerate(TEXT):
            whole.open(session)
            whole.forward([ShardInput(session=session, tokens=tokens)])

    return collect(whole.module, read)


def statistics_of(source: ModelSource) -> Statistics:
    assert source.folder is not None
    return _statistics_of(source.folder)


@cache
def _statistics_of(folder: Path) -> Statistics:
    return calibrated(from_folder(folder))


def test_split_at_the_change_point_equals_unsplit_bit_for_bit(source: ModelSource) -> None:
    whole = answer([packed(source, 0, LAYERS)], PROMPT)
    parts = answer([packed(source, 0, CUT), packed(source, CUT, LAYERS)], PROMPT)
    assert np.array_equal(whole, parts)
    assert not np.allclose(whole, answer([unpacked(source, 0, LAYERS)], PROMPT), rtol=1e-3)


def test_what_is_held_is_what_the_law_says_at_every_cut(source: ModelSource) -> None:
    """Rows of these models come in whole bundles."""
    shape = source.shape
    law = WeightLaw(plain_bits=32, layers=OPSC.back, embedding=OPSC.embedding, head=OPSC.head)
    every = WeightConfig(split=0, back=OPSC.back, embedding=OPSC.embedding, head=OPSC.head)
    for start, stop in ((0, 1), (1, LAYERS), (0, LAYERS), (2, LAYERS)):
        held = packed(source, start, stop, every).resident_bytes()
        assert held - extra_bytes(source, start, stop) == law.shard_bytes(shape, start, stop)


@pytest.mark.parametrize("key", ["layers", "embedding", "head"])
def test_each_part_has_its_own_setting(llama: ModelSource, key: str) -> None:
    fmt = WeightFormat(bits=4, group_size=32)
    config = WeightConfig(split=LAYERS, **{"front" if key == "layers" else key: fmt})
    law = WeightLaw(plain_bits=32, **{key: fmt})
    shard = packed(llama, 0, LAYERS, config)
    assert shard.resident_bytes() - extra_bytes(llama, 0, LAYERS) == law.shard_bytes(llama.shape, 0, LAYERS)
    assert law.shard_bytes(llama.shape, 0, LAYERS) < llama.shape.weight_bytes(0, LAYERS, 32)


def test_every_matrix_of_a_family_is_found(source: ModelSource) -> None:
    targets = list(find_targets(unpacked(source, 0, LAYERS).module))
    sizes = [target.weight.numel() for target in targets if target.layer is not None]
    assert sum(sizes) == LAYERS * source.shape.params_per_layer
    assert {target.key for target in targets if target.layer is None} == {"embedding", "head"}


def test_more_bits_come_closer_to_the_model(source: ModelSource) -> None:
    exact, losses = answer([unpacked(source, 0, LAYERS)], PROMPT), {}
    for bits in (8, 6, 4, 2):
        config = WeightConfig(split=LAYERS, front=WeightFormat(bits=bits, group_size=32))
        losses[bits] = float(np.square(answer([packed(source, 0, LAYERS, config)], PROMPT) - exact).mean())
    assert max(losses[8], losses[6], losses[4]) < losses[2]


@pytest.mark.parametrize("method", ["atom", "smoothquant"])
def test_what_a_channel_takes_is_counted_by_the_law(source: ModelSource, method: str) -> None:
    """Places and factors are one a column of each matrix, fused or not, at every cut."""
    fmt = format_of(method, 8, group_size=None, symmetric=True, outliers=OUTLIERS.get(method))
    statistics, law = statistics_of(source), WeightLaw(plain_bits=32, layers=fmt)
    for start, stop in ((0, 1), (1, LAYERS)):
        shard = shard_of(source, start, stop)
        config = WeightConfig(method=method, split=0, back=fmt)
        quantise_module(shard.module, config, first_layer=start, statistics=statistics)
        assert shard.resident_bytes() - extra_bytes(source, start, stop) == law.shard_bytes(source.shape, start, stop)


@pytest.mark.parametrize("method", ["rtn", "gptq", "fp8", "smoothquant", "atom"])
def test_saved_and_loaded_weights_give_the_same_answer_bit_for_bit(
    source: ModelSource, method: str, tmp_path: Path
) -> None:
    fmt = format_of(method, 8, group_size=None, symmetric=False, outliers=OUTLIERS.get(method))
    inputs = ActivationFormat(bits=6, group_size=32, symmetric=False)  # behind the cut of weights that stay as they are
    config = WeightConfig(
        method=method, split=2, front=fmt, back_inputs=inputs, embedding=OPSC.embedding, head=OPSC.head
    )
    whole = shard_of(source, 0, LAYERS)
    quantise_module(whole.module, config, statistics=statistics_of(source))
    save_quantised(whole.module, tmp_path, config)
    loaded = [shard_of(source, start, stop) for start, stop in ((0, 2), (2, LAYERS))]
    for shard in loaded:
        assert load_quantised(shard.module, tmp_path, first_layer=shard.start) == config
    expected = answer([whole], PROMPT)
    assert np.array_equal(expected, answer(loaded, PROMPT))


def test_calibration_is_repeatable(source: ModelSource) -> None:
    first, again = statistics_of(source), calibrated(source)
    assert list(first) == list(again)
    for one, other in zip(first.values(), again.values(), strict=True):
        assert torch.equal(one.gram, other.gram)
        assert torch.equal(one.largest, other.largest)
        assert one.num_rows == other.num_rows


def test_loading_reads_only_the_shards_own_tensors(
    llama: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_quantised(packed(llama, 0, LAYERS).module, tmp_path, OPSC)
    read: list[str] = []

    class Recording:
        def __init__(self, *args: object, **kwargs: object) -> None:
            self._open = real_safe_open(*args, **kwargs)

        def __enter__(self) -> Recording:
            self._file = self._open.__enter__()
            return self

        def __exit__(self, *error: object) -> None:
            self._open.__exit__(*error)

        def keys(self) -> list[str]:
            return list(self._file.keys())

        def get_tensor(self, name: str) -> torch.Tensor:
            read.append(name.split("/", maxsplit=1)[0].split(".", maxsplit=1)[0])
            return self._file.get_tensor(name)

    monkeypatch.setattr(saved, "safe_open", Recording)
    load_quantised(shard_of(llama, 0, CUT).module, tmp_path)
    assert set(read) == {"0", "embedding"}
    read.clear()
    load_quantised(shard_of(llama, CUT, LAYERS).module, tmp_path, first_layer=CUT)
    assert set(read) == {"1", "2", "head"}


def test_folders_that_cannot_be_loaded(llama: ModelSource, tmp_path: Path) -> None:
    def load(start: int = 0, stop: int = LAYERS) -> None:
        load_quantised(shard_of(llama, start, stop).module, tmp_path, first_layer=start)

    with pytest.raises(ModelError, match="cannot read the settings"):
        load()
    save_quantised(packed(llama, 0, CUT).module, tmp_path, OPSC)
    with pytest.raises(ModelError, match=r"holds no packed weights for this layer .*1\.self_attn"):
        load(CUT)
    settings = json.loads((tmp_path / "quantization.json").read_text())
    settings["matrices"]["0.mlp.up_proj"]["rows"] = 8
    (tmp_path / "quantization.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="another model's"):
        load(0, CUT)
    (tmp_path / "quantization.json").write_text(json.dumps(settings | {"version": 0}))
    with pytest.raises(ModelError, match="another version"):
        load(0, CUT)
    save_quantised(packed(llama, 0, CUT).module, tmp_path, OPSC)
    raw = (tmp_path / "packed.safetensors").read_bytes()
    (tmp_path / "packed.safetensors").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ModelError, match="cannot read packed weights"):
        load(0, CUT)


def test_weights_that_are_not_numbers_are_refused(llama: ModelSource) -> None:
    shard = shard_of(llama, 0, CUT)
    layer = shard.module.get_submodule("layers.0.mlp.up_proj")
    broken = layer.weight.detach().clone()
    broken[1, 2] = float("nan")
    layer.weight = torch.nn.Parameter(broken, requires_grad=False)
    with pytest.raises(ModelError, match=r"0\.mlp\.up_proj: weights hold NaN or infinite values"):
        quantise_module(shard.module, OPSC)


def test_what_does_not_fit_is_refused(llama: ModelSource) -> None:
    with pytest.raises(ModelError, match="longer than a row"):
        packed(llama, 0, CUT, WeightConfig(split=CUT, front=WeightFormat(bits=4, group_size=64)))
    with pytest.raises(ModelError, match="gptq needs calibration text for every layer"):
        packed(llama, 0, CUT, WeightConfig(method="gptq", split=CUT, front=WeightFormat(bits=4)))
    with pytest.raises(ModelError, match="nothing in this module can be quantised"):
        quantise_module(torch.nn.ReLU(), OPSC)


@pytest.mark.parametrize("act_order", [False, True])
def test_gptq_comes_closer_than_rounding_on_text_it_has_not_seen(data_dir: Path, act_order: bool) -> None:
    """stories260K at 3 bits: the layers' error on held-out stories, every layer fed what it gets in the full model."""
    source = from_folder(data_dir / "stories260K" / "hf")
    tokens = stories(source, data_dir)
    exact = shard_of(source, 0, 5)
    seen = collect(exact.module, lambda: read(exact, tokens[:24]))
    held_out = collect(exact.module, lambda: read(exact, tokens[24:32]))
    errors: dict[str, list[float]] = {"rtn": [], "gptq": []}
    weights = {target.key: target.weight for target in find_targets(exact.module)}
    for method, found in errors.items():
        config = WeightConfig(method=method, split=5, front=WeightFormat(bits=3, group_size=32), act_order=act_order)
        shard = shard_of(source, 0, 5)
        quantise_module(shard.module, config, statistics=seen)
        for path, part in shard.module.named_modules():
            if isinstance(part, PackedLinear):
                key = path.split("layers.", 1)[1]
                wrong = part.dequantised() - weights[key]
                found.append(float(torch.einsum("rc,cd,rd->", wrong, held_out[key].gram, wrong)))
    assert len(errors["rtn"]) == 35
    ratios = np.array(errors["gptq"]) / np.array(errors["rtn"])
    assert ratios.max() < 1
    assert sum(errors["gptq"]) < 0.8 * sum(errors["rtn"])
