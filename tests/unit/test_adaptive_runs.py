"""Codecs that change within a request, and what the sessions of a run agree on before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from testbed.actors.agreement import agreed_spec
from testbed.actors.calls import BackCall, BackItem, FrontCall, HostSpec
from testbed.actors.shard_host import ShardHost
from testbed.codecs.agreed import agree
from testbed.codecs.framing import CodecError
from testbed.core.errors import ScenarioError
from testbed.core.events import CodecChanged, RequestAdmitted, TransferEnded
from testbed.core.plan import Decision
from testbed.core.registry import POLICIES
from testbed.models.sampling_config import SamplingConfig
from testbed.policies.fixed import Static
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import format_of
from testbed.results.folder import read_run
from testbed.run import prepare, run
from testbed.scenarios.load import load_scenario
from tests.ray.worlds import save_model, write_scenario
from tests.sim_runs import group, link, of_kind, run_events, scenario, workload

PHASES = {"kind": "phases", "split": 2, "prefill": "int4", "decode": "int8"}
RUNGS = ["raw-float32", "int8", "int4"]
BYTES = {"raw-float32": 4 * 16, "int8": 4 + 16, "int4": 4 + 8}  # a token of 16 channels


def sizes_up(events, request=0):
    return [event.payload_bytes for event in of_kind(events, TransferEnded, direction="up", request=request)]


def test_phases_encode_the_prompt_and_the_steps_each_their_own_way():
    events = run_events(scenario(policy=PHASES))
    assert sizes_up(events) == [24 + 5 * BYTES["int4"], *[24 + BYTES["int8"]] * 3]
    assert [(change.step, change.codec) for change in of_kind(events, CodecChanged)] == [(1, "int8")]
    assert of_kind(events, RequestAdmitted)[0].codec == "int4"


def test_one_codec_for_both_phases_is_the_static_policy():
    same = {**PHASES, "prefill": "int8"}
    assert run_events(scenario(policy=same)) == run_events(scenario(policy={**scenario().policy.model_dump()}))


@pytest.mark.parametrize("rate", ["5 kbit/s", "20 kbit/s", "60 kbit/s"])
def test_the_ladder_follows_the_goodput_that_the_messages_had(rate):
    """The rule once more, from the trace alone: a message's bits over the time from its encoding to its arrival."""
    low, high = 15_000, 40_000
    policy = {"kind": "ladder", "split": 2, "rungs": RUNGS}
    policy |= {"coarser_below": f"{low} bit/s", "finer_above": f"{high} bit/s"}
    asks = workload(output_tokens={"law": "fixed", "value": 12})
    jittery = link(rate_up=rate, jitter={"law": "exponential", "mean": "20 ms"})
    events = run_events(scenario(policy=policy, fleet=[group(link=jittery)], workload=asks))
    sent = [event.end_ns for event in events if getattr(event, "hop", None) == "encode"]
    arrived = of_kind(events, TransferEnded, direction="up")
    rung, changes, expected = 0, [], []
    for step, (start_ns, transfer) in enumerate(zip(sent, arrived, strict=True)):
        expected.append(24 + (5 if step == 0 else 1) * BYTES[RUNGS[rung]])
        goodput = transfer.payload_bytes * 8e9 / (transfer.time_ns - start_ns)
        following = min(rung + 1, 2) if goodput < low else max(rung - 1, 0) if goodput > high else rung
        if following != rung and step + 1 < len(arrived):
            changes.append((step + 1, RUNGS[following]))
        rung = following
    assert sizes_up(events) == expected
    assert [(change.step, change.codec) for change in of_kind(events, CodecChanged)] == changes
    assert changes, "a link on which nothing changes shows nothing"


class Disloyal(Static):
    """Says int8 and then does what it likes."""

    def decide(self, observation, state=None):
        return Decision(split=2, codec="int4"), state


class Wayward(Static):
    def adapt(self, observation):
        return "int4" if observation.step == 2 else observation.codec


@pytest.mark.parametrize(("policy", "steps"), [(Disloyal, 0), (Wayward, 2)])
def test_a_codec_that_the_session_did_not_agree_on_ends_the_run(policy, steps, monkeypatch):
    monkeypatch.setitem(POLICIES._loaded, "static", policy)  # as it is once somebody has asked for it
    with pytest.raises(CodecError, match="did not agree on codec int4, but on int8"):
        run_events(scenario())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agreed")
    save_model(folder / "model")
    return write_scenario(folder, folder / "model")


def spec_of(small, **changes):
    from testbed.models.source import from_folder

    draw = np.random.default_rng(3)
    texts = tuple(tuple(int(token) for token in draw.integers(2, 96, length)) for length in (40, 50, 60))
    known = {"dtype": "float32", "sampling": SamplingConfig(greedy=True), "keep_logits": False, "calibration": texts}
    return HostSpec(source=from_folder(small.parent / "model"), **{**known, **changes})


def test_means_are_those_of_the_whole_models_hidden_states(small):
    """Against transformers' own hidden states at that layer."""
    import torch
    from transformers import AutoModelForCausalLM

    spec = spec_of(small)
    whole = AutoModelForCausalLM.from_pretrained(small.parent / "model", dtype=torch.float32)
    rows = []
    for tokens in spec.calibration:
        with torch.no_grad():
            states = whole(torch.tensor([tokens]), output_hidden_states=True).hidden_states
        rows.append(states[2][0].double().numpy())
    agreed = agreed_spec(spec, [("int8(centre=true)", 2), ("int8", 2)]).agreed
    assert set(agreed) == {("int8(centre=true)", 2)}
    found = agreed["int8(centre=true)", 2].means
    np.testing.assert_allclose(found, np.concatenate(rows).mean(axis=0), atol=1e-5)


def test_means_are_those_that_the_quantised_front_has(small):
    weights = WeightConfig(
        method="rtn", split=0, front=format_of("rtn", 3, group_size=None, symmetric=False), back=None
    )
    pair = ("int4(centre=true)", 2)
    plain, rough = (
        agreed_spec(spec, [pair]).agreed[pair] for spec in (spec_of(small), spec_of(small, weights=weights))
    )
    states_ND = np.concatenate(ShardHost(spec_of(small, weights=weights)).shards.calibration_states(2))
    assert rough.digest == agree(pair[0], states_ND).digest != plain.digest


def test_hosts_take_what_was_agreed_on_and_nothing_else(small):
    spec = agreed_spec(spec_of(small), [("int8(centre=true)", 2), ("int4", 2)])
    edge, cloud = ShardHost(spec), ShardHost(spec)
    for codec in ("int8(centre=true)", "int4"):
        tokens = (1, 2, 3) if codec != "int4" else (4,)
        (done,) = edge.execute([FrontCall(session=1, split=2, codec=codec, tokens=tokens)])
        item = BackItem(session=1, sampling_seed=0, split=2, codec=codec, message=done.value)
        for other in ("int8", "int4(centre=true)"):
            with pytest.raises(CodecError, match="no session agreed"):
                cloud.execute([BackCall(items=(replace(item, codec=other),))])
        cloud.execute([BackCall(items=(item,))])
    with pytest.raises(CodecError, match="no session agreed"):
        edge.execute([FrontCall(session=2, split=1, codec="int4", tokens=(1,))])
    elsewhere = ShardHost(agreed_spec(spec_of(small, calibration=((9, 8, 7) * 30,)), [("int8(centre=true)", 2)]))
    (done,) = edge.execute([FrontCall(session=3, split=2, codec="int8(centre=true)", tokens=(1, 2))])
    item = BackItem(session=3, sampling_seed=0, split=2, codec="int8(centre=true)", message=done.value)
    with pytest.raises(CodecError, match="agreed on something else"):
        elsewhere.execute([BackCall(items=(item,))])


def test_a_real_run_changes_codecs_and_each_message_is_decoded_by_its_own(small, tmp_path):
    policy = "policy={kind: phases, split: 2, prefill: 'ts-tabq(tau=1)', decode: int8}"
    result = run(prepare(load_scenario(small, overrides=[policy])), tmp_path / "run")
    assert result.summary["completed"] == 39
    tables = read_run(tmp_path / "run").tables
    rows = {row["request"]: row for row in tables.requests.to_pylist()}
    cut = [number for number, row in rows.items() if row["group"] in ("cut", "modelled")]
    assert all(rows[number]["codec_changes"] == 1 for number in cut)
    assert result.summary["codec_changes"] == len(cut)
    import pyarrow.parquet as pq

    messages = pq.read_table(tmp_path / "run" / "transfers.parquet").to_pylist()
    for number in cut:
        up = [row for row in messages if row["request"] == number and row["direction"] == "up"]
        assert [row["codec"] for row in up] == ["ts-tabq(tau=1.0)", *["int8"] * (len(up) - 1)]
        assert {row["payload_bytes"] for row in up[1:]} == {24 + 4 + 32 + 20}
    bare = [row["codec"] for row in messages if row["request"] not in cut or row["direction"] == "down"]
    assert set(bare) == {None}


@pytest.mark.parametrize(
    ("calibration", "said"),
    [("null", "tokenizer"), ("[a]", "tokenizer"), ("[]", "calibration: ")],
)
def test_an_agreement_without_text_or_tokenizer_is_refused_before_the_run(small, calibration, said):
    overrides = ["policy.codec='int8(centre=true)'", f"calibration={calibration}"]
    with pytest.raises(ScenarioError, match=said):
        prepare(load_scenario(small, overrides=overrides))


def test_pebble_agrees_on_its_own_corpus_unless_text_is_given(tmp_path):
    fast = [
        "policy.codec='int4(centre=true)'",
        "workload.output_tokens.value=2",
        "workload.arrivals.requests_per_device=1",
    ]
    prepared = prepare(load_scenario("scenarios/smoke.yaml", overrides=fast))
    assert len(prepared.calibration) == 64
    result = run(prepared, tmp_path / "run")
    assert result.summary["completed"] == 2
    with pytest.raises(ScenarioError, match="calibration: the calibration text is too short"):
        prepare(load_scenario("scenarios/smoke.yaml", overrides=[*fast, "calibration=[the red boat]"]))
