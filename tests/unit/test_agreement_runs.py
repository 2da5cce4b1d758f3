"""Real groups whose codec needs an agreement: taken once before the run, held by both sides, no byte on the wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testbed.actors.calls import BackCall, BackItem, FrontCall, HostSpec
from testbed.actors.shard_host import ShardHost
from testbed.codecs.framing import CodecError
from testbed.core.errors import ScenarioError
from testbed.models.sampling_config import SamplingConfig
from testbed.models.source import ModelSource
from testbed.run import prepare, run
from testbed.scenarios.load import build_scenario
from testbed.sim.agreeing import agreeing_pairs
from tests.equivalence.tiny_models import PROMPT, save_tiny
from tests.unit.tiny_scenario import tiny

CODEC, SPLIT = "int4(centre=true)", 1
TEXTS = [[(7 * place + 3 * line) % 96 for place in range(30)] for line in range(4)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    return save_tiny("llama", tmp_path_factory.mktemp("llama"))


def host(source: ModelSource, **more: Any) -> ShardHost:
    return ShardHost(
        HostSpec(source=source, dtype="float32", sampling=SamplingConfig(greedy=True), keep_logits=False, **more)
    )


def real_pebble(codec: str, **more: Any) -> dict[str, Any]:
    return tiny(
        ("model", "pebble"),
        ("policy", {"kind": "static", "split": 6, "codec": codec}),
        ("fleet.0.compute", "real"),
        ("record", {"quality": True}),
        *more.items(),
    )


def test_two_hosts_understand_each_other_and_a_third_does_not(source: ModelSource) -> None:
    agreed = host(source).agree(CODEC, SPLIT, TEXTS)
    assert agreed is not None
    spec = {"agreements": {(CODEC, SPLIT): agreed}}
    call = FrontCall(session=1, split=SPLIT, codec=CODEC, tokens=tuple(PROMPT))
    (sent,) = host(source, **spec).execute([call])
    item = BackItem(session=1, split=SPLIT, codec=CODEC, message=sent.value, sampling_seed=0)
    (answer,) = host(source, **spec).execute([BackCall(items=(item,))])
    assert answer.value[0] >= 0
    other = host(source).agree(CODEC, SPLIT, TEXTS[1:])
    with pytest.raises(CodecError, match="agreed on something else"):
        host(source, agreements={(CODEC, SPLIT): other}).execute([BackCall(items=(item,))])
    with pytest.raises(CodecError, match="has to agree on means first"):
        host(source).execute([call])


def test_means_are_those_of_the_unsplit_models_hidden_states(source: ModelSource) -> None:
    from testbed.models.shard import Shard, ShardInput

    agreed = host(source).agree(CODEC, SPLIT, TEXTS)
    assert agreed is not None
    assert agreed.means is not None
    shard, rows = Shard(source, start=0, stop=SPLIT), []
    for session, tokens in enumerate(TEXTS):
        shard.open(session)
        rows += shard.forward([ShardInput(session=session, tokens=tokens)])
    np.testing.assert_allclose(agreed.means, np.concatenate(rows).mean(axis=0), atol=1e-5)


def test_a_real_run_with_centring_pays_what_the_plain_codec_pays(tmp_path: Path) -> None:
    plain, centred = (
        run(prepare(build_scenario(real_pebble(codec), base=tmp_path)), tmp_path / codec).summary
        for codec in ("int4", "int4(centre=true)")
    )
    assert centred["bytes_up"] == plain["bytes_up"] > 0
    assert centred["complete"]


def test_only_real_groups_at_a_cut_agree() -> None:
    def pairs(*changes: tuple[str, Any]) -> list[tuple[str, int]]:
        return agreeing_pairs(build_scenario(tiny(*changes), base=Path()), 16)

    centred = ("policy", {"kind": "static", "split": 4, "codec": {"kind": "int8", "centre": True}})
    assert pairs(centred) == []
    assert pairs(("fleet.0.compute", "real"), centred) == [("int8(centre=true)", 4)]
    assert pairs(("fleet.0.compute", "real")) == []
    assert pairs(("fleet.0.compute", "real"), ("policy", "edge-only")) == []
    assert pairs(("fleet.0.compute", "real"), centred, ("policy.split", 0)) == []


def test_a_modelled_run_needs_no_agreement(tmp_path: Path) -> None:
    scenario = build_scenario(tiny(("policy.codec", "int8(centre=true)")), base=tmp_path)
    assert run(prepare(scenario), tmp_path / "run").summary["complete"]


def test_a_model_without_a_tokenizer_can_not_read_the_samples(source: ModelSource, tmp_path: Path) -> None:
    data = real_pebble("int4(centre=true)", model=str(source.folder))
    data["policy"]["split"] = 1
    with pytest.raises(ScenarioError, match="tokenizer"):
        run(prepare(build_scenario(data, base=tmp_path)), tmp_path / "run")
