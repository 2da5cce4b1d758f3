"""Shard hosts with packed weights: each side its own precision, answers held against the full model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from testbed.actors.calls import AuditCall, BackCall, BackItem, Call, CloseCall, FrontCall, HostSpec, WholeCall
from testbed.actors.shard_host import ShardHost
from testbed.actors.weight_plan import weight_config, weight_laws
from testbed.core.cast import Quality
from testbed.core.errors import ModelError
from testbed.models.kv_format import KVFormat
from testbed.models.sampling_config import SamplingConfig
from testbed.models.source import ModelSource
from testbed.quantization.config import WeightConfig
from testbed.scenarios.weights import Weights
from tests.equivalence.tiny_models import LAYERS, PROMPT

TEXT = tuple(tuple((7 * place + 3 * line) % 96 for place in range(40)) for line in range(3))
OPSC = Weights(front_bits=4, back_bits=8, group_size=32, embedding_bits=6, head_bits=5)


@pytest.fixture(scope="module")
def source(tiny: Callable[[str], ModelSource]) -> ModelSource:
    return tiny("llama")


def host(
    source: ModelSource,
    weights: Weights | None,
    calibration: tuple[tuple[int, ...], ...] = (),
    kv: tuple[int | None, int | None] = (None, None),
) -> ShardHost:
    return ShardHost(
        HostSpec(
            source=source,
            dtype="float32",
            sampling=SamplingConfig(greedy=True, temperature=1.0, top_k=0, top_p=1.0),
            keep_logits=True,
            weights=None if weights is None else weight_config(weights),
            calibration=calibration,
            front_kv_bits=kv[0],
            back_kv_bits=kv[1],
        )
    )


def run(found: ShardHost, call: Call) -> object:
    (done,) = found.execute([call])
    return done.value


def generate(found: ShardHost, split: int, steps: int = 6) -> tuple[int, ...]:
    """Greedy tokens of one session cut at `split`: 0 runs all on the server, L all on the device."""
    output: list[int] = []
    new = tuple(PROMPT)
    for _ in range(steps):
        if split == LAYERS:
            output.append(run(found, WholeCall(session=1, tokens=new, sampling_seed=1)))
        else:
            message = np.array(new, dtype="<u4").tobytes()
            if split:
                message = run(found, FrontCall(session=1, split=split, codec="raw-float32", tokens=new))
            item = BackItem(session=1, split=split, codec="raw-float32", message=message, sampling_seed=1)
            output.extend(run(found, BackCall(items=(item,))))
        new = (output[-1],)
    return tuple(output)


def audit(found: ShardHost, output: tuple[int, ...]) -> Quality:
    quality = run(found, AuditCall(session=1, prompt=tuple(PROMPT), output=output))
    assert isinstance(quality, Quality)
    return quality


@pytest.mark.parametrize("split", range(LAYERS + 1))
def test_each_side_holds_its_own_bits_and_the_reference_all(source: ModelSource, split: int) -> None:
    found = host(source, OPSC)
    audit(found, generate(found, split))
    front, back = weight_laws(OPSC, 32)
    held = {
        (start, stop, stored is not None): size for (start, stop, stored), size in found.shards.resident_bytes().items()
    }
    rotary = held[0, LAYERS, False] - source.shape.weight_bytes(0, LAYERS, 32)
    expected = {(0, LAYERS, False): source.shape.weight_bytes(0, LAYERS, 32)}
    if split > 0:
        expected[0, split, True] = front.shard_bytes(source.shape, 0, split)
    if split < LAYERS:
        expected[split, LAYERS, True] = back.shard_bytes(source.shape, split, LAYERS)
    assert held == {key: size + rotary for key, size in expected.items()}


@pytest.mark.parametrize("split", range(LAYERS + 1))
def test_the_audit_tells_the_damage(source: ModelSource, split: int) -> None:
    """None without packing, more the fewer the bits; always against the full model."""
    exact = host(source, None)
    assert audit(exact, generate(exact, split)).max_logit_difference == 0
    differences = []
    for bits in (8, 5, 2):
        found = host(source, Weights(front_bits=bits, back_bits=bits, group_size=32))
        differences.append(audit(found, generate(found, split)).max_logit_difference)
    assert 0 < differences[0] < differences[1] < differences[2]


@pytest.mark.parametrize("split", range(LAYERS + 1))
def test_each_side_rounds_its_own_activations(source: ModelSource, split: int) -> None:
    """A side without bits for them does what it did; fewer bits cost more; no byte is held more or less."""
    plain = {key[:2]: size for key, size in _held(host(source, None), split).items()}
    differences = []
    for bits in (8, 4, 2):
        found = host(source, Weights(front_activation_bits=bits, back_activation_bits=bits))
        differences.append(audit(found, generate(found, split)).max_logit_difference)
        held = {key[:2]: size for key, size in found.shards.resident_bytes().items() if key[2] is not None}
        assert held == {key: size for key, size in plain.items() if key in held}
        assert held
    assert 0 < differences[0] < differences[1] < differences[2]
    found = host(source, Weights(**{"front_activation_bits" if split == 0 else "back_activation_bits": 2}))
    if split in (0, LAYERS):
        assert audit(found, generate(found, split)).max_logit_difference == 0


def _held(found: ShardHost, split: int) -> dict[tuple[int, int, WeightConfig | None], int]:
    generate(found, split)
    return found.shards.resident_bytes()


def test_a_side_that_stays_as_it_is_shares_the_references_shard(source: ModelSource) -> None:
    found = host(source, Weights(back_bits=4, group_size=32))
    output = generate(found, LAYERS)
    assert audit(found, output).max_logit_difference == 0
    assert set(found.shards.resident_bytes()) == {(0, LAYERS, None)}


@pytest.mark.parametrize("method", ["gptq", "smoothquant", "atom"])
def test_hosts_calibrate_alike_by_themselves(source: ModelSource, method: str) -> None:
    own = {"outlier_channels": 8} if method == "atom" else {}
    weights = Weights(method=method, front_bits=8, back_bits=8, calibration=["as given below"], **own)
    outputs, differences = set(), set()
    for _ in range(2):
        found = host(source, weights, TEXT)
        outputs.add(output := generate(found, 1))
        differences.add(audit(found, output).max_logit_difference)
    assert len(outputs) == len(differences) == 1
    assert differences.pop() > 0
    with pytest.raises(ModelError, match="calibration text is too short"):
        generate(host(source, weights, TEXT[:1]), 1)


def test_the_change_point_moves_with_the_cut(source: ModelSource) -> None:
    """One host serves two cuts at a time, each with the front's bits before it and the back's behind."""
    found = host(source, OPSC)
    for split in (1, 2):
        front = FrontCall(session=split, split=split, codec="raw-float32", tokens=tuple(PROMPT))
        message = run(found, front)
        run(
            found,
            BackCall(
                items=(BackItem(session=split, split=split, codec="raw-float32", message=message, sampling_seed=1),)
            ),
        )
    config = weight_config(OPSC)
    stored = {
        (start, stop): item for start, stop, item in found.shards.resident_bytes() if isinstance(item, WeightConfig)
    }
    assert {key: item.of_layer(key[0]) for key, item in stored.items()} == {
        (0, 1): config.front,
        (0, 2): config.front,
        (1, LAYERS): config.back,
        (2, LAYERS): config.back,
    }
    assert {key for key, item in stored.items() if item.embedding is not None} == {(0, 1), (0, 2)}


def test_stories_lose_what_the_bits_take(data_dir: Path, tmp_path: Path) -> None:
    """The shipped scenario of real shards, at 8, 4 and 2 bits: agreement falls, and 8 bits cost nearly nothing."""
    import json

    from testbed.run import prepare
    from testbed.run import run as run_scenario
    from testbed.scenarios.load import load_scenario

    shares = []
    for bits in (8, 4, 2):
        changes = [f"weights.front_bits={bits}", f"model={data_dir / 'stories260K' / 'hf'}"]
        changes.append("workload.output_tokens.value=24")
        changes.append(f"tokenizer={data_dir / 'stories260K' / 'tok512.model'}")
        result = run_scenario(prepare(load_scenario("opsc-stories", overrides=changes)), tmp_path / str(bits))
        summary = json.loads((result.folder / "summary.json").read_text())
        shares.append(summary["quality"]["token_agreement"])
    assert shares[0] >= 0.95
    assert shares[0] >= shares[1] > shares[2]


@pytest.mark.parametrize("split", range(LAYERS + 1))
def test_each_side_packs_its_keys_and_values_and_the_reference_none(source: ModelSource, split: int) -> None:
    """Read from the process while the session is open; the audit tells what the widths cost."""
    exact, coarse = host(source, None), host(source, None, kv=(3, 6))
    assert audit(exact, generate(exact, split)).max_logit_difference == 0
    output = generate(coarse, split)
    tokens = len(PROMPT) + len(output) - 1
    front, back = (KVFormat(bits=bits).kv_bytes(source.shape, tokens, 0, 1) for bits in (3, 6))
    sides = {(0, split): split * front, (split, LAYERS): (LAYERS - split) * back}
    assert coarse.shards.kv_bytes() == {layers: size for layers, size in sides.items() if size}
    found = audit(coarse, output)
    assert found.max_logit_difference > 0
    run(coarse, CloseCall(session=1))
    assert not any(coarse.shards.kv_bytes().values())
