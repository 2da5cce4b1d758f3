"""A change of split re-uses what is loaded: shards of overlapping cuts share parts, and nothing is packed twice."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from testbed.actors import host_shards
from testbed.actors.calls import BackCall, BackItem, CloseCall, FrontCall, HostSpec, WholeCall
from testbed.actors.layer_store import LayerStore
from testbed.actors.shard_host import ShardHost
from testbed.actors.weight_plan import weight_config, weight_laws
from testbed.models.sampling_config import SamplingConfig
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource
from testbed.quantization.apply import quantise_module
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import WeightFormat
from testbed.quantization.targets import find_targets
from testbed.scenarios.weights import Learning, Weights
from tests.equivalence.tiny_models import CASES, LAYERS, PROMPT

TEXT = tuple(tuple((7 * place + 3 * line) % 96 for place in range(40)) for line in range(3))
OPSC = Weights(front_bits=4, back_bits=8, group_size=32, embedding_bits=6, head_bits=5)
PACKED = WeightConfig(split=0, back=WeightFormat(bits=4, group_size=32))


@pytest.fixture(scope="module", params=CASES)
def source(request: Any, tiny: Callable[[str], ModelSource]) -> ModelSource:
    return tiny(request.param)


@pytest.fixture(scope="module")
def llama(tiny: Callable[[str], ModelSource]) -> ModelSource:
    return tiny("llama")


def host(source: ModelSource, weights: Weights | None, keep_logits: bool = False) -> ShardHost:
    return ShardHost(
        HostSpec(
            source=source,
            dtype="float32",
            sampling=SamplingConfig(greedy=True, temperature=1.0, top_k=0, top_p=1.0),
            keep_logits=keep_logits,
            weights=None if weights is None else weight_config(weights),
            calibration=TEXT,
        )
    )


def hidden(found: ShardHost, split: int) -> bytes:
    """A prompt's message at a cut; the back runs it too."""
    call = FrontCall(session=split, split=split, codec="raw-float32", tokens=tuple(PROMPT))
    message = found.execute([call])[0].value
    item = BackItem(session=split, split=split, codec="raw-float32", message=message, sampling_seed=1)
    (done,) = found.execute([BackCall(items=(item,))])
    found.execute([CloseCall(session=split)])
    return bytes(message) + bytes(done.value)


def logits(shard: Shard) -> np.ndarray:
    shard.open(1)
    (found,) = shard.forward([ShardInput(session=1, tokens=PROMPT)])
    shard.close(1)
    return found


def buffers(shard: Shard) -> dict[int, int]:
    """Rotary tables and scales, which no checkpoint holds: every shard has its own."""
    own = (item for path, item in shard.module.named_buffers() if "rotary" in path or "embed_scale" in path)
    return {item.data_ptr(): item.nbytes for item in own}


def store_of(source: ModelSource, packed: list[int] | None = None) -> LayerStore:
    def pack(shard: Shard, stored: WeightConfig) -> None:
        if packed is not None:
            packed.extend(
                target.layer for target in find_targets(shard.module, shard.start) if target.layer is not None
            )
        quantise_module(shard.module, stored, first_layer=shard.start)

    return LayerStore(source, dtype="float32", device="cpu", pack=pack)


def union(shards: Iterable[Shard]) -> int:
    tensors: dict[int, int] = {}
    for shard in shards:
        tensors |= {key: size for key, size in shard.resident_tensors().items() if key not in buffers(shard)}
    return sum(tensors.values())


@pytest.mark.parametrize("stored", [None, PACKED])
def test_shards_of_every_cut_share_their_parts_and_run_as_ever(
    source: ModelSource, stored: WeightConfig | None
) -> None:
    """In every family: the same logits as a shard built alone, and the bytes of all cuts are those of the whole."""
    store = store_of(source)
    ranges = [(0, 1), (1, LAYERS), (0, 2), (2, LAYERS), (0, LAYERS)]
    shards = [store.shard(start, stop, stored, None) for start, stop in ranges]
    alone = Shard(source, start=0, stop=LAYERS)
    if stored is not None:
        quantise_module(alone.module, stored)
    assert np.array_equal(logits(shards[-1]), logits(alone))
    assert union(shards) == union([alone])
    for shard in shards[:-1]:
        assert set(shard.resident_tensors()) - set(buffers(shard)) <= set(shards[-1].resident_tensors())


def test_a_move_of_the_cut_packs_only_the_layer_that_is_new(llama: ModelSource) -> None:
    packed: list[int] = []
    store = store_of(llama, packed)
    first = store.shard(1, LAYERS, PACKED, None)
    assert sorted(set(packed)) == [1, 2]
    packed.clear()
    second = store.shard(0, LAYERS, PACKED, 4)
    assert set(packed) == {0}
    packed.clear()
    third = store.shard(2, LAYERS, PACKED, None)
    assert packed == []
    for path in ("mlp.up_proj", "self_attn.q_proj"):
        place = "model.layers.{}." + path
        parts = [
            shard.module.get_submodule(place.format(layer)) for shard, layer in ((first, 1), (second, 2), (third, 0))
        ]
        assert len({part.store.codes.data_ptr() for part in parts}) == 1


def test_what_nobody_holds_any_more_is_gone(llama: ModelSource) -> None:
    packed: list[int] = []
    store = store_of(llama, packed)
    shard = store.shard(0, 2, PACKED, None)
    del shard
    gc.collect()
    packed.clear()
    store.shard(0, 1, PACKED, None)
    assert set(packed) == {0}


def test_a_host_of_two_cuts_holds_their_union(llama: ModelSource) -> None:
    """Front of 2 with front of 1 inside it, back from 1 with back from 2: each side's parts once, and nothing else."""
    found = host(llama, OPSC)
    for split in (1, 2):
        hidden(found, split)
    front, back = weight_laws(OPSC, 32)
    rotary = 2 * 4 * 4  # bytes of every shard's own frequencies: 4, and as they were before scaling
    both = front.shard_bytes(llama.shape, 0, 2) + back.shard_bytes(llama.shape, 1, LAYERS)
    assert found.shards.weight_bytes() == both + 4 * rotary
    assert sum(found.shards.resident_bytes().values()) > found.shards.weight_bytes() * 1.5


@pytest.mark.parametrize(
    "weights",
    [
        None,
        OPSC,
        Weights(method="gptq", front_bits=3, back_bits=3, calibration=["as given"]),
        Weights(method="smoothquant", front_bits=8, back_bits=8, calibration=["as given"]),
        Weights(method="omniquant", front_bits=4, back_bits=4, learning=Learning(epochs=2), calibration=["as given"]),
    ],
    ids=["plain", "rtn", "gptq", "smoothquant", "omniquant"],
)
def test_a_cut_gives_the_same_whatever_was_cut_before(llama: ModelSource, weights: Weights | None) -> None:
    fresh = {split: hidden(host(llama, weights), split) for split in range(1, LAYERS)}
    used = host(llama, weights)
    used.execute([WholeCall(session=9, sampling_seed=1, tokens=tuple(PROMPT))])
    for split in (2, 1, 2):
        assert hidden(used, split) == fresh[split]


def test_the_reference_stays_at_full_precision_beside_packed_parts(llama: ModelSource, monkeypatch: Any) -> None:
    """And no part is packed a second time when the cut comes back to where it was."""
    calls: list[int] = []

    def counted(*args: Any, **rest: Any) -> object:
        calls.append(1)
        return quantise_module(*args, **rest)

    monkeypatch.setattr(host_shards, "quantise_module", counted)
    found = host(llama, OPSC)
    hidden(found, 1)
    hidden(found, 2)
    assert len(calls) == 3  # two fronts, and the back from 1, which holds the back from 2
    reference = found.shards.reference(5)  # what audits run on
    assert np.array_equal(logits(reference), logits(Shard(llama, start=0, stop=LAYERS)))
