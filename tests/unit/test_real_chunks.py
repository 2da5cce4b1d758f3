"""Real shards that run prompts in chunks answer as the unsplit model does; what they can't do is refused."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from testbed.actors.calls import BackItem, pack_tokens
from testbed.core.errors import ScenarioError
from testbed.run import prepare, run
from testbed.scenarios.load import build_scenario, load_scenario
from tests.unit.tiny_scenario import tiny, write

CACHE = "servers.0.kv_cache"
RECOMPUTE = {"reserve": "blocks"}
SWAP = {"reserve": "blocks", "preemption": "swap", "swap_bandwidth": "10 GB/s"}


def real(*changes):
    return tiny(
        ("model", "pebble"),
        ("fleet.0.compute", "real"),
        ("fleet.0.count", 3),
        ("workload.arrivals", {"kind": "times", "times": ["0 s"]}),
        ("workload.prompts", {"kind": "corpus"}),
        ("workload.ignore_eos", True),
        ("policy", {"kind": "static", "split": 3, "codec": "raw-float32"}),
        *changes,
    )


@pytest.mark.parametrize("policy", [{"kind": "static", "split": 3, "codec": "raw-float32"}, {"kind": "cloud-only"}])
def test_prompts_in_chunks_are_answered_as_the_unsplit_model_does(tmp_path, policy):
    chunked = [("servers.0.chunk_tokens", 4), ("servers.0.priority", "decode"), (CACHE, SWAP), ("policy", policy)]
    summary = run(prepare(load_scenario(write(tmp_path / "s.yaml", real(*chunked)))), tmp_path / "out").summary
    prefills = pq.read_table(tmp_path / "out" / "servers.parquet")["prefill_tokens"].to_pylist()
    assert max(prefills) == 4 < sum(prefills) / 3  # shorter than the prompts
    assert summary["completed"] == 3
    assert summary["quality"]["token_agreement"] == 1.0
    assert summary["quality"]["tokens"] == 12
    assert summary["quality"]["max_logit_difference"] < 1e-3


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ((CACHE, RECOMPUTE), "servers[0].kv_cache.preemption"),
        ((CACHE, {**SWAP, "prefix": "session"}), "servers[0].kv_cache.prefix"),
    ],
)
def test_what_needs_a_shard_to_do_what_it_can_not_is_refused(tmp_path, change, path):
    with pytest.raises(ScenarioError) as caught:
        prepare(load_scenario(write(tmp_path / "s.yaml", real(change))))
    assert caught.value.path == path


def test_a_server_that_forgets_takes_no_chunks(tmp_path):
    policy = {"kind": "static", "split": 3, "codec": "raw-float32", "mode": "recompute"}
    with pytest.raises(ScenarioError, match="forgets") as caught:
        prepare(load_scenario(write(tmp_path / "s.yaml", real(("policy", policy), ("servers.0.chunk_tokens", 4)))))
    assert caught.value.path == "servers[0].chunk_tokens"


@pytest.mark.parametrize(
    ("key", "value", "path"),
    [
        ("kv_cache", {"preemption": "swap", "reserve": "blocks"}, "servers[0].kv_cache.swap_bandwidth"),
        ("kv_cache", {"reserve": "blocks", "swap_bandwidth": "1 GB/s"}, "servers[0].kv_cache.swap_bandwidth"),
        ("kv_cache", {"block_tokens": 32}, "servers[0].kv_cache.block_tokens"),
        ("kv_cache", {"prefix": "session"}, "servers[0].kv_cache.prefix"),
        ("admission", {}, "servers[0].admission"),
        ("scheduler", "earliest-deadline", "servers[0].scheduler.ttft"),
        ("scheduler", {"kind": "shortest-first", "by": "luck"}, "servers[0].scheduler.by"),
        ("priority", "decodes", "servers[0].priority"),
    ],
)
def test_contradictory_keys_are_located(tmp_path, key, value, path):
    with pytest.raises(ScenarioError) as caught:
        build_scenario(tiny((f"servers.0.{key}", value)), base=tmp_path)
    assert caught.value.path == path


def test_a_part_of_a_pass_that_nobody_began_is_filler():
    # After a lost host only open sessions' messages are run again; parts of ended ones stand for their length.
    from testbed.actors.calls import BackCall, HostSpec
    from testbed.actors.shard_host import ShardHost
    from testbed.models.sampling_config import SamplingConfig
    from testbed.models.source import resolve

    spec = HostSpec(source=resolve("pebble"), dtype="float32", sampling=SamplingConfig(), keep_logits=False)
    host = ShardHost(spec)
    common = {"sampling_seed": 1, "split": 0, "codec": "raw-float32"}
    first = BackItem(session=1, message=pack_tokens([5, 6, 7]), num_tokens=2, is_last=False, **common)
    rest = BackItem(session=1, message=None, num_tokens=1, **common)
    whole = BackItem(session=2, message=pack_tokens([5, 6, 7]), **common)
    unknown = BackItem(session=3, message=None, num_tokens=4, is_last=False, **common)
    one, two, alone, filler = (host.execute([BackCall(items=(item,))])[0] for item in (first, rest, whole, unknown))
    assert two.value == alone.value
    assert (one.spans, two.spans, filler.spans) == (((0, 2),), ((2, 3),), ((0, 4),))
