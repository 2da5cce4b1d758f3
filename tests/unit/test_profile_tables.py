"""Costs from a measured table: its entries, the laws between them, and runs that ask for what it lacks."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.actors.costs import CostModel
from testbed.actors.profile_table import ProfileTable, read_profile_table
from testbed.core.errors import ScenarioError
from testbed.core.work import Work
from testbed.models.known_shapes import KNOWN_CONFIGS
from testbed.run import prepare, run
from testbed.scenarios.load import build_scenario
from testbed.scenarios.profiles import ServerProfile
from testbed.sim.cohort.eligible import reasons
from tests.sim_runs import TINY, group, server, workload

LAYERS = 4
MODEL = {"name": "tiny", "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8}
TABLE: dict[str, Any] = {
    "name": "made up",
    "source": "invented for this test",
    "model": {**MODEL, "vocab_size": 64},
    "weight_bits": 32,
    "kv_bits": 32,
    "overhead_ns": 7,
    "layer": {"tokens": [1, 4, 8, 64], "time_ns": [1000, 1300, 1250, 9000]},
    "prefill_attention": {"new_tokens": [2, 64], "past_tokens": [0, 10], "time_ns": [[100, 300], [720, 920]]},
    "decode_attention": {"sequences": [1, 4], "context_tokens": [0, 100], "time_ns": [[50, 150], [80, 480]]},
    "decode_beside_prefill": {"sequences": [1, 4], "context_tokens": [0, 100], "time_ns": [[40, 250], [90, 980]]},
    "embedding": {"tokens": [1, 101], "time_ns": [10, 110]},
    "head": {"sequences": [1, 5], "time_ns": [500, 540]},
}


def profile(*, extrapolate: bool = False, **changes: object) -> ServerProfile:
    named = {"file": "unread.json", "extrapolate": extrapolate}
    return ServerProfile.model_validate({**server(), "profile_table": named, **changes})


def model(*, extrapolate: bool = False, table: dict[str, Any] | None = None, **changes: object) -> CostModel:
    law = ProfileTable.model_validate(TABLE if table is None else table)
    used = profile(extrapolate=extrapolate, **changes)
    return CostModel(profile=used, shape=TINY, weight_bits=32, kv_bits=32, table=law)


def work(new: int = 1, past: int = 0, start: int = 1, stop: int = 2) -> Work:
    return Work(start=start, stop=stop, new_tokens=new, past_tokens=past)


def without(*parts: str) -> dict[str, Any]:
    return {key: item for key, item in TABLE.items() if key not in parts}


def test_entries_come_back_as_measured() -> None:
    assert model().forward_ns([work(past=100)]) == 7 + 1000 + 150
    assert model().forward_ns([work(past=100)] * 4) == 7 + 1300 + 480
    assert model().forward_ns([work(new=64, past=10)]) == 7 + 9000 + 920


def test_between_entries_a_line_rounds_down_and_below_them_the_first_stands() -> None:
    assert model().forward_ns([work(past=33)]) == 7 + 1000 + (50 + 33)
    # Two steps of mean context 33 (32 and 33, rounded up): a third of the way from 1 to 4 sequences.
    at_1, at_4 = 50 + 33, 80 + 400 * 33 // 100
    pair = model().forward_ns([work(past=32), work(past=33)])
    assert pair == 7 + (1000 + 300 // 3) + at_1 + (at_4 - at_1) // 3
    assert model().forward_ns([work(new=2, past=0)]) == 7 + (1000 + 100) + 100


def test_where_a_measurement_falls_the_largest_so_far_stands() -> None:
    prefill_of_8 = 100 + 620 * 6 // 62
    assert model().forward_ns([work(new=8)]) == 7 + 1300 + prefill_of_8


def test_steps_beside_a_prefill_take_the_larger_of_both_tables() -> None:
    prefill = work(new=63)
    layer, attention = 1300 + 7700, 100 + 620 * 61 // 62
    assert model().forward_ns([prefill, work(past=100)]) == 7 + layer + attention + 250
    assert model().forward_ns([prefill, work(past=0)]) == 7 + layer + attention + 50


def test_layers_are_alike_and_embedding_and_head_count_where_they_run() -> None:
    layer = 1000 + 150
    assert model().forward_ns([work(past=100, start=0, stop=4)]) == 7 + 10 + 4 * layer + 500
    assert model().forward_ns([work(past=100, start=0, stop=3)]) == 7 + 10 + 3 * layer
    assert model().forward_ns([work(past=100, start=1, stop=4)]) == 7 + 3 * layer + 500


def test_sequences_of_other_splits_share_their_layers() -> None:
    alone, together = 1000 + 150, (1000 + 100) + 150 + (480 - 150) // 3
    cost = model().forward_ns([work(past=100, start=1, stop=4), work(past=100, start=3, stop=4)])
    assert cost == 7 + 2 * alone + together + 510


def test_what_the_table_lacks_is_by_the_roofline() -> None:
    bare = model(table=without("prefill_attention", "decode_attention", "decode_beside_prefill", "embedding", "head"))
    roofline = CostModel(profile=profile(), shape=TINY, weight_bits=32, kv_bits=32)._roofline
    step = Work(start=0, stop=4, new_tokens=1, past_tokens=9)
    attention = roofline.attention_ns(9 + 2, 9 + 1)
    assert bare.forward_ns([step]) == 7 + roofline.embedding_ns(1) + 4 * (1000 + attention) + roofline.head_ns(1)


def test_all_reduces_are_added_unless_they_were_measured() -> None:
    ring = {"tensor_parallel": 2, "interconnect_bandwidth": "1 GB/s", "interconnect_latency": "100 ns"}
    apart = model(table={**TABLE, "processors": 2}, **ring).forward_ns([work()])
    assert apart - model().forward_ns([work()]) == 2 * (100 + 16 * 2)
    included = model(table={**TABLE, "processors": 2, "all_reduce": "included"}, **ring)
    assert included.forward_ns([work()]) == model().forward_ns([work()])


def test_beyond_the_table_is_refused_with_its_range() -> None:
    with pytest.raises(ScenarioError) as caught:
        model().forward_ns([work(new=65)])
    assert caught.value.problem == "made up has no times for so many: prefill_attention.new_tokens"
    assert (caught.value.value, caught.value.allowed) == (65, "up to 64, or extrapolate: true")


def test_extrapolation_goes_on_along_the_last_line_and_is_remembered() -> None:
    bold = model(extrapolate=True)
    assert bold.forward_ns([work(new=64)]) == 7 + 9000 + 720
    assert not bold.reached
    assert bold.forward_ns([work(new=65)]) == 7 + (9000 + 7700 // 56) + 730
    assert bold.reached == {"layer.tokens": 65, "prefill_attention.new_tokens": 65}


spans = st.sampled_from([(0, 4), (1, 4), (2, 4), (1, 2)])
steps = st.builds(lambda past, span: work(1, past, *span), st.integers(0, 100), spans)
prefills = st.builds(lambda new, past, span: work(new, past, *span), st.integers(2, 15), st.integers(0, 10), spans)
batches = st.lists(st.one_of(steps, prefills), min_size=1, max_size=4)


@given(batches, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_times_are_whole(batch: list[Work], order: random.Random) -> None:
    shuffled = list(batch)
    order.shuffle(shuffled)
    cost = model().forward_ns(batch)
    assert type(cost) is int
    assert model().forward_ns(shuffled) == cost


@given(st.integers(1, 4), st.integers(0, 100), st.integers(0, 3), st.integers(0, 100), st.booleans())
def test_more_equal_steps_and_longer_contexts_never_take_less(
    number: int, past: int, more: int, longer: int, beside: bool
) -> None:
    prefill = [work(new=9)] if beside else []
    small = model().forward_ns([*prefill, *[work(past=past)] * number])
    large = model().forward_ns([*prefill, *[work(past=min(100, past + longer))] * min(4, number + more)])
    assert small <= large


@given(st.integers(2, 64), st.integers(0, 10), st.integers(0, 62), st.integers(0, 10))
def test_longer_prefills_never_take_less(new: int, past: int, more: int, longer: int) -> None:
    larger = work(new=min(64, new + more), past=min(10, past + longer))
    assert model().forward_ns([work(new=new, past=past)]) <= model().forward_ns([larger])


# --- files and scenarios


def write(folder: Path, table: dict[str, Any]) -> str:
    (folder / "table.json").write_text(json.dumps(table))
    return "table.json"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"layer": {"tokens": [4, 4], "time_ns": [1, 2]}}, "layer.tokens: whole numbers that rise are expected"),
        ({"layer": {"tokens": [1, 4], "time_ns": [1]}}, "layer.time_ns: one time, not below 0, for each entry"),
        ({"head": {"sequences": [1], "time_ns": [-1]}}, "head.time_ns: one time, not below 0"),
        ({"decode_attention": None}, "decode_attention: steps beside a prefill need those without one"),
        ({"layer": {"tokens": [1], "times": [1]}}, "layer.times: unknown key; allowed: time_ns, tokens"),
        ({"source": ""}, "source: the text is empty"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    file = tmp_path / write(tmp_path, {**TABLE, **changes})
    with pytest.raises(ScenarioError) as caught:
        read_profile_table(file)
    assert str(caught.value).startswith(f"{file}: {expected}")


def scenario_data(**changes: object) -> dict[str, Any]:
    """A run of llama-3.2-1b's sizes behind the cut, by a table that was measured on these."""
    return {
        "name": "test",
        "model": "llama-3.2-1b",
        "dtype": "bfloat16",
        "seed": 1,
        "policy": {"kind": "static", "split": 4, "codec": "raw-float16"},
        "fleet": [group(device={"use": "raspberry-pi-5"})],
        "servers": [{"server": {"use": "l4", "profile_table": {"file": "table.json"}}}],
        "workload": workload(),
        **changes,
    }


LLAMA_TABLE = {
    **TABLE,
    "model": {
        "name": "llama-3.2-1b", "hidden_size": 2048, "intermediate_size": 8192,
        "num_heads": 32, "num_kv_heads": 8, "head_dim": 64, "vocab_size": 128256,
    },
    "weight_bits": 16,
    "kv_bits": 16,
}  # fmt: skip


def test_a_run_takes_its_times_from_the_table_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, {key: item for key, item in LLAMA_TABLE.items() if key != "embedding"})
    ready = prepare(build_scenario(scenario_data(), base=tmp_path))
    summary = run(ready, tmp_path / "run").summary
    assert summary["profile_tables"] == [
        {
            "profile": "l4",
            "table": "made up",
            "source": "invented for this test",
            "by_roofline": ["embedding"],
            "extrapolated": {},
        }
    ]
    # One sequence: a prefill of 5 tokens and three steps, through 12 layers each, and the head.
    table = CostModel(
        profile=profile(), shape=ready.source.shape, weight_bits=16, kv_bits=16,
        table=ProfileTable.model_validate(LLAMA_TABLE),
    )  # fmt: skip
    passes = [Work(start=4, stop=16, new_tokens=5, past_tokens=0)]
    passes += [Work(start=4, stop=16, new_tokens=1, past_tokens=5 + step) for step in range(3)]
    back_s = sum(table.forward_ns([item]) for item in passes) / 1e9
    assert summary["breakdown_s"]["back"]["mean_s"] == pytest.approx(back_s)


@pytest.mark.parametrize(
    ("table", "changes", "expected"),
    [
        (
            {"model": {**LLAMA_TABLE["model"], "num_kv_heads": 32}},
            {},
            "servers[0].server.profile_table: made up was measured with llama-3.2-1b, and layers of llama-3.2-1b "
            "differ (got 'num_kv_heads 8'); allowed: num_kv_heads 32",
        ),
        (
            {},
            {"dtype": "float32"},
            "servers[0].server.profile_table: made up was measured with weights of 16 bits (got '32 bits'); "
            "allowed: 16 bits, or a table measured like this",
        ),
        (
            {"processors": 2},
            {},
            "servers[0].server.profile_table: made up was measured on 2 processors that share every layer (got 1); "
            "allowed: tensor_parallel: 2",
        ),
        (
            {},
            {"workload": workload(output_tokens={"law": "fixed", "value": 400})},
            "servers[0].server.profile_table: made up has no times for so many: decode_attention.context_tokens "
            "(got 404); allowed: up to 100, or extrapolate: true",
        ),
        (
            {},
            {"workload": workload(arrivals={"kind": "times", "times": [f"{ms} ms" for ms in range(1, 9)]})},
            "servers[0].server.profile_table: made up has no times for so many: decode_attention.sequences "
            "(got 8); allowed: up to 4, or extrapolate: true",
        ),
    ],
)
def test_what_was_not_measured_is_refused_before_the_run(
    tmp_path: Path, table: dict[str, Any], changes: dict[str, Any], expected: str
) -> None:
    write(tmp_path, {**LLAMA_TABLE, **table})
    with pytest.raises(ScenarioError) as caught:
        prepare(build_scenario(scenario_data(**changes), base=tmp_path))
    assert str(caught.value) == expected


def test_extrapolation_is_flagged_in_the_summary(tmp_path: Path) -> None:
    write(tmp_path, LLAMA_TABLE)
    servers = [{"server": {"use": "l4", "profile_table": {"file": "table.json", "extrapolate": True}}}]
    many = workload(output_tokens={"law": "fixed", "value": 120})
    ready = prepare(build_scenario(scenario_data(servers=servers, workload=many), base=tmp_path))
    summary = run(ready, tmp_path / "run").summary
    assert summary["profile_tables"][0]["extrapolated"] == {"decode_attention.context_tokens": 5 + 120 - 2}


def test_a_device_takes_its_front_from_a_table_too(tmp_path: Path) -> None:
    write(tmp_path, LLAMA_TABLE)
    measured = {"use": "raspberry-pi-5", "profile_table": {"file": "table.json"}}
    data = scenario_data(fleet=[group(device=measured)], servers=[{"server": "l4"}])
    summary = run(prepare(build_scenario(data, base=tmp_path)), tmp_path / "run").summary
    # Four layers and the embedding, for 5 new tokens and then for one after 5, 6 and 7.
    layer_5, attention_5 = 1300, 100 + 620 * 3 // 62
    prefill = 7 + 14 + 4 * (layer_5 + attention_5)
    steps = [7 + 10 + 4 * (1000 + 50 + past) for past in (5, 6, 7)]
    assert summary["breakdown_s"]["front"]["mean_s"] == pytest.approx((prefill + sum(steps)) / 1e9)
    long = scenario_data(
        fleet=[group(device=measured)], servers=[{"server": "l4"}],
        workload=workload(output_tokens={"law": "fixed", "value": 200}),
    )  # fmt: skip
    with pytest.raises(ScenarioError, match=r"^fleet\[0\]\.device\.profile_table: made up has no times for so many"):
        prepare(build_scenario(long, base=tmp_path))


def test_cohorts_leave_tables_to_the_other_engine(tmp_path: Path) -> None:
    write(tmp_path, LLAMA_TABLE)
    plain = scenario_data(servers=[{"server": {"use": "l4", "host_time": "1 ms"}}])
    of_table, of_host = (reasons(build_scenario(data, base=tmp_path), 16) for data in (scenario_data(), plain))
    assert "servers.server.profile_table" in of_table
    assert not [reason for reason in of_host if reason.startswith("servers")]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"table\.json: can't be read: No such file"):
        prepare(build_scenario(scenario_data(), base=tmp_path))


@pytest.mark.parametrize("name", ["llama-2-70b", "llama-3.1-70b", "qwen2.5-72b"])
def test_seventy_billion_weights_run_by_their_sizes_alone(tmp_path: Path, name: str) -> None:
    assert name in KNOWN_CONFIGS
    servers = [{"server": {"use": "h100", "tensor_parallel": 4}}]
    data = scenario_data(model=name, servers=servers, policy={"kind": "static", "split": 1, "codec": "raw-float16"})
    summary = run(prepare(build_scenario(data, base=tmp_path)), tmp_path / "run").summary
    assert summary["completed"] == 1
    # 70 G weights at 16 bits over four times 2.81 TB/s: at least 12.4 ms a token behind the cut.
    assert summary["tpot_s"]["p50"] > 0.0124
