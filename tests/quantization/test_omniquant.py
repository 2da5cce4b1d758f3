"""OmniQuant: the learned storage of whole decoder layers, against rounding, on text that it was not learned on."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from testbed.actors.calls import BackCall, BackItem, FrontCall
from testbed.actors.weight_plan import weight_config
from testbed.actors.weights import WeightLaw
from testbed.core.errors import ModelError
from testbed.models.pebble.corpus import document
from testbed.models.pebble.world import build_world
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource, from_folder, resolve
from testbed.models.tokenizer import load_tokenizer
from testbed.quantization.apply import needs_blocks, quantise_module
from testbed.quantization.blocks import Blocks, collect_blocks
from testbed.quantization.config import Learning, WeightConfig
from testbed.quantization.formats import BITS, ActivationFormat, WeightFormat, format_of
from testbed.quantization.learned import Epoch, LearnedLinear
from testbed.quantization.packed import PackedLinear
from testbed.quantization.saved import load_quantised, save_quantised
from testbed.quantization.stores import Store
from testbed.quantization.targets import find_blocks, find_targets
from testbed.run import prepare
from testbed.run import run as run_scenario
from testbed.scenarios import weights as scenarios
from testbed.scenarios.load import load_scenario
from tests.equivalence.tiny_models import CASES, LAYERS, PROMPT
from tests.quantization.test_hosts import host, run

TEXT = [[(7 * place + 3 * line) % 96 for place in range(64)] for line in range(2)]
UNLIKE = ["llama tied, biases", "phi3 sliding", "gemma3_text sliding", "gpt2", "opt post-norm, projected", "gpt_neox"]
QUICK = Learning(epochs=1)
W4A4 = WeightConfig(
    method="omniquant",
    split=LAYERS,
    front=format_of("omniquant", 4, group_size=None, symmetric=False),
    front_inputs=ActivationFormat(bits=4),
    learning=QUICK,
)


@pytest.fixture(scope="module", params=UNLIKE)
def source(request: Any, tiny: Callable[[str], ModelSource]) -> ModelSource:
    return tiny(request.param)


@pytest.fixture(scope="module")
def llama(tiny: Callable[[str], ModelSource]) -> ModelSource:
    return tiny("llama")


def read(shard: Shard, text: list[list[int]]) -> list[np.ndarray]:
    outputs = []
    for session, tokens in enumerate(text):
        shard.open(session)
        outputs += shard.forward([ShardInput(session=session, tokens=tokens)], batched=False)
        shard.close(session)
    return outputs


def blocks_of(source: ModelSource, text: list[list[int]] = TEXT) -> Blocks:
    whole = Shard(source, start=0, stop=source.shape.num_layers)
    return collect_blocks(whole.module, lambda: read(whole, text))


def packed(source: ModelSource, start: int, stop: int, config: WeightConfig, blocks: Blocks | None = None) -> Shard:
    shard = Shard(source, start=start, stop=stop)
    quantise_module(shard.module, config, first_layer=start, blocks=blocks or blocks_of(source))
    return shard


def answer(shards: list[Shard]) -> np.ndarray:
    """Logits of the prompt's last token."""
    item = ShardInput(session=9, tokens=PROMPT)
    for shard in shards:
        shard.open(9)
        (out,) = shard.forward([item])
        item = ShardInput(session=9, hidden=out)
    return out


@pytest.mark.parametrize("case", CASES)
def test_what_enters_a_block_is_what_a_front_puts_out(case: str, tiny: Callable[[str], ModelSource]) -> None:
    """And a block run alone, without a cache, gives what enters the next."""
    source = tiny(case)
    blocks = blocks_of(source)
    whole = Shard(source, start=0, stop=LAYERS)
    modules = {block.layer: block.module for block in find_blocks(whole.module)}
    assert set(blocks) == set(modules) == set(range(LAYERS))
    for layer in range(1, LAYERS):
        for call, before, expected in zip(
            blocks[layer], blocks[layer - 1], read(Shard(source, start=0, stop=layer), TEXT), strict=True
        ):
            assert np.array_equal(call.hidden[0].numpy(), expected)
            assert torch.allclose(before.run(modules[layer - 1]), call.hidden, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group", [32, None])
@pytest.mark.parametrize("symmetric", [False, True])
def test_what_is_trained_is_what_is_stored(bits: int, group: int | None, symmetric: bool) -> None:
    """Bit for bit, wherever the learning has got to."""
    generator = torch.Generator().manual_seed(bits)
    weight, x = torch.randn(24, 72, generator=generator), torch.randn(5, 72, generator=generator)
    fmt = WeightFormat(bits=bits, group_size=group, symmetric=symmetric, smooth=True)
    inputs = ActivationFormat(bits=bits, symmetric=symmetric)
    learner = LearnedLinear(weight, weight[:, 0], fmt, inputs=inputs, factors=x.abs().amax(0))
    for item in (*learner.clips, *learner.transformation):
        item.data += torch.randn(item.shape, generator=generator)
    part = learner.packed(weight[:, 0])
    part.inputs = inputs
    assert torch.equal(learner(x), part(x))


def test_the_gradient_is_that_of_the_function_without_rounding() -> None:
    """At eight bits and without clipping the loss's slope along the factors is close to zero in theory, so is it here;
    along the clips it is the slope that finite differences of the clipped, unrounded weight have."""
    generator = torch.Generator().manual_seed(1)
    weight, x = torch.randn(16, 32, generator=generator), torch.randn(64, 32, generator=generator)
    learner = LearnedLinear(weight, None, WeightFormat(bits=8))
    learner.clip_high.data.fill_(1.0)
    wanted = x @ weight.T

    def clipped(ends: torch.Tensor) -> torch.Tensor:
        high = weight.amax(1, keepdim=True) * ends.sigmoid()
        low = weight.amin(1, keepdim=True) * learner.clip_low.detach().sigmoid()
        return (x @ torch.maximum(torch.minimum(weight, high), low).T - wanted).square().mean()

    ends = learner.clip_high.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad(clipped(ends), ends)
    (found,) = torch.autograd.grad((learner(x) - wanted).square().mean(), learner.clip_high)
    assert torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.99


class _Exact(Store):
    """A matrix kept as it is, in the place of its codes."""

    def __init__(self, weight_RC: torch.Tensor) -> None:
        super().__init__(WeightFormat(bits=8), *weight_RC.shape)
        self._keep(weight=weight_RC)

    def dequantised(self, start: int, stop: int) -> torch.Tensor:
        return self._held("weight")[start:stop]

    def gather(self, rows_N: torch.Tensor) -> torch.Tensor:
        return self._held("weight")[rows_N]


def test_the_transformation_alone_changes_nothing(source: ModelSource) -> None:
    """Every block with its learned factors, weights and inputs not rounded: its own output to 1e-5."""
    blocks = blocks_of(source)
    exact = Shard(source, start=0, stop=LAYERS).module
    learned = packed(source, 0, LAYERS, W4A4, blocks).module
    weights = {target.path: target.weight for target in find_targets(exact)}
    for path, part in learned.named_modules():
        if isinstance(part, PackedLinear) and part.smooth is not None:
            assert (part.smooth - 1).abs().max() > 0.05
            part.store, part.inputs = _Exact(weights[path] * part.smooth), None
    with torch.no_grad():
        for block in find_blocks(exact):
            for call in blocks[block.layer]:
                expected = call.run(block.module)
                assert (
                    call.run(learned.get_submodule(block.path)) - expected
                ).abs().max() < 1e-5 * expected.abs().max()


def test_split_equals_unsplit_bit_for_bit(source: ModelSource) -> None:
    """Two hosts that learn by themselves, each from the full-precision model, have what one host has."""
    back = replace(W4A4, split=1, back=WeightFormat(bits=6, group_size=32))
    whole = answer([packed(source, 0, LAYERS, back)])
    assert np.array_equal(whole, answer([packed(source, 0, 1, back), packed(source, 1, LAYERS, back)]))
    assert not np.allclose(whole, answer([Shard(source, start=0, stop=LAYERS)]), rtol=1e-3)


def test_bytes_are_the_laws(source: ModelSource) -> None:
    """Factors included, also where a family keeps several matrices in one."""
    assert W4A4.front is not None
    law = WeightLaw(plain_bits=32, layers=W4A4.front)
    for start, stop in ((0, 1), (1, LAYERS)):
        plain = Shard(source, start=start, stop=stop)
        extra = sum(item.nbytes for item in plain.module.buffers())
        held = packed(source, start, stop, W4A4).resident_bytes()
        assert held - extra == law.shard_bytes(source.shape, start, stop)


def test_saved_and_loaded_it_gives_the_same_answer(source: ModelSource, tmp_path: Path) -> None:
    whole = packed(source, 0, LAYERS, W4A4)
    save_quantised(whole.module, tmp_path, W4A4)
    loaded = [Shard(source, start=start, stop=stop) for start, stop in ((0, 2), (2, LAYERS))]
    for shard in loaded:
        assert load_quantised(shard.module, tmp_path, first_layer=shard.start) == W4A4
    assert np.array_equal(answer([whole]), answer(loaded))


def test_hosts_apart_choose_the_tokens_of_the_unsplit_packed_model(llama: ModelSource) -> None:
    """Neither host has seen the other: what they hold together is one model with the change point at the cut."""
    own = scenarios.Learning(epochs=2)
    weights = scenarios.Weights(
        method="omniquant",
        front_bits=4,
        back_bits=3,
        group_size=32,
        front_activation_bits=6,
        calibration=["as given below"],
        learning=own,
    )
    front, back = (host(llama, weights, tuple(map(tuple, TEXT))) for _ in range(2))
    config = replace(weight_config(weights), split=1)
    whole = packed(llama, 0, LAYERS, config)
    whole.open(1)
    new = tuple(PROMPT)
    for _ in range(6):
        (logits,) = whole.forward([ShardInput(session=1, tokens=new)])
        message = run(front, FrontCall(session=1, split=1, codec="raw-float32", tokens=new))
        item = BackItem(session=1, split=1, codec="raw-float32", message=message, sampling_seed=1)
        (token,) = run(back, BackCall(items=(item,)))
        assert token == int(np.argmax(logits))
        assert np.array_equal(back._logits[1][-1], logits)
        new = (token,)


def test_a_scenario_runs_it(data_dir: Path, tmp_path: Path) -> None:
    """Real shards of stories260K, calibrated on the texts that the scenario names."""
    weights = {
        "method": "omniquant",
        "front_bits": 4,
        "back_bits": 8,
        "front_activation_bits": 8,
        "calibration": ["Once upon a time, there was a little girl named Lily. She loved to play outside. " * 4],
        "learning": {"epochs": 1},
    }
    changes = [f"weights={json.dumps(weights)}", f"model={data_dir / 'stories260K' / 'hf'}"]
    changes.append(f"tokenizer={data_dir / 'stories260K' / 'tok512.model'}")
    done = run_scenario(prepare(load_scenario("opsc-stories", overrides=changes)), tmp_path / "run")
    summary = json.loads((done.folder / "summary.json").read_text())
    assert summary["completed"] == 2
    assert 0.5 < summary["quality"]["token_agreement"] <= 1


def test_the_same_text_gives_the_same_bits(llama: ModelSource) -> None:
    config = replace(W4A4, learning=Learning(epochs=2))
    first, second = (packed(llama, 0, LAYERS, config).module.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    shorter = packed(llama, 0, LAYERS, replace(config, learning=Learning(epochs=2, num_samples=1))).module.state_dict()
    assert not all(torch.equal(first[name], shorter[name]) for name in first)


def test_learning_leaves_the_full_precision_layer_and_tells_its_epochs(llama: ModelSource) -> None:
    blocks, heard = blocks_of(llama), list[Epoch]()
    shard = Shard(llama, start=1, stop=LAYERS)
    kept = copy.deepcopy(shard.module.state_dict())
    config = replace(W4A4, split=2, learning=Learning(epochs=4, transform_rate=0.01))
    quantise_module(shard.module, config, first_layer=1, blocks=blocks, watch=heard.append)
    assert [(item.layer, item.epoch, item.num_epochs) for item in heard] == [(1, epoch, 4) for epoch in range(1, 5)]
    assert heard[-1].loss < heard[0].loss
    after = shard.module.state_dict()
    gone = {name for name in kept if name not in after}
    assert gone == {name for name in kept if name.startswith("model.layers.0.") and "proj" in name}
    assert all(torch.equal(after[name], kept[name]) for name in kept if name in after)


def test_what_is_missing_is_named(llama: ModelSource) -> None:
    with pytest.raises(ModelError, match=r"0\.self_attn\.q_proj: omniquant needs calibration text for every"):
        quantise_module(Shard(llama, start=0, stop=1).module, W4A4)
    with pytest.raises(ModelError, match="calibration text is too short"):
        blocks_of(llama, [PROMPT])
    assert needs_blocks(W4A4)
    assert not needs_blocks(replace(W4A4, method="gptq"))
    assert not needs_blocks(replace(W4A4, front=None))


def _errors(exact: nn.Module, found: nn.Module, blocks: Blocks) -> np.ndarray:
    """Mean squared error of every block's output, each fed what it gets in the full-precision model."""
    return np.array(
        [_error(block.module, found.get_submodule(block.path), blocks[block.layer]) for block in find_blocks(exact)]
    )


@torch.no_grad()
def _error(before: nn.Module, after: nn.Module, calls: Any) -> float:
    errors = [(call.run(after) - call.run(before)).square().mean().item() for call in calls]
    return float(np.mean(errors))


SETTINGS = {
    "W4A4": (4, None, ActivationFormat(bits=4)),
    "W3A16": (3, 32, None),
    "W4A16": (4, 32, None),
}


def _compare(
    source: ModelSource, setting: str, seen: list[list[int]], held_out: list[list[int]], epochs: int = 2
) -> np.ndarray:
    """Each block's held-out error over round to nearest's."""
    bits, group, inputs = SETTINGS[setting]
    exact = Shard(source, start=0, stop=source.shape.num_layers)
    blocks, new = blocks_of(source, seen), blocks_of(source, held_out)
    errors = []
    for method in ("rtn", "omniquant"):
        fmt = format_of(method, bits, group_size=group, symmetric=False)
        config = WeightConfig(method=method, split=99, front=fmt, front_inputs=inputs, learning=Learning(epochs=epochs))
        errors.append(_errors(exact.module, packed(source, 0, source.shape.num_layers, config, blocks).module, new))
    return errors[1] / errors[0]


@pytest.mark.parametrize("setting", ["W4A4", "W3A16", pytest.param("W4A16", marks=pytest.mark.slow)])
def test_every_block_of_stories_comes_closer_than_rounding(data_dir: Path, setting: str) -> None:
    source = from_folder(data_dir / "stories260K" / "hf")
    tokenizer = load_tokenizer(source, str(data_dir / "stories260K" / "tok512.model"))
    text = (data_dir / "tinystories" / "tinystories_2MiB.txt").read_text(encoding="utf-8")[:60_000]
    stories = [tokenizer.encode(story.strip())[:80] for story in text.split("<|endoftext|>")]
    ratios = _compare(source, setting, stories[:16], stories[24:32])
    assert len(ratios) == 5
    assert ratios.max() < 0.95


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_block_of_pebble_comes_closer_than_rounding(setting: str) -> None:
    source, world = resolve("pebble"), build_world()
    tokenizer = load_tokenizer(source, None)
    held_out = 10**9  # documents that far were never trained on
    pages = [tokenizer.encode(document(world, held_out + index).text) for index in range(240)]
    texts = [[*chain(*pages[start : start + 4])] for start in range(0, len(pages), 4)]
    ratios = _compare(source, setting, texts[:40], texts[40:], epochs=4)
    assert len(ratios) == 12
    assert ratios.max() < 0.95
