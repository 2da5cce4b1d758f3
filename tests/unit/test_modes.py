"""The three modes by law: what crosses the link, what each side holds, how long the server computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.actors.costs import CostModel
from testbed.actors.memory import edge_demand, server_kv_bytes, server_weights_bytes
from testbed.codecs.framing import CodecError, Envelope
from testbed.codecs.kv_message import kv_message_bytes, pack_kv, unpack_kv
from testbed.core.events import Event, IterationEnded, TransferEnded
from testbed.core.work import Work
from testbed.models.kv_format import KVFormat
from testbed.models.source import resolve
from testbed.scenarios.fingerprint import fingerprint
from testbed.scenarios.load import load_scenario
from testbed.sim.world import World
from tests.mutations import mutated
from tests.sim_runs import TINY, group, of_kind, run_world, scenario, server, spans_of

from .tiny_scenario import call, tiny, write

PROMPT, OUTPUT, SPLIT, LAYERS, HIDDEN = 5, 4, 2, 4, 16
PASSES = [(PROMPT, 0), *((1, PROMPT + step) for step in range(OUTPUT - 1))]  # new and past tokens
KV_5 = {"front_bits": 3, "back_bits": 5}
RECORD = 2 * KVFormat(bits=5).token_bytes(TINY)  # a token's keys and values in the two layers behind the cut
MODES = ["stateful", "recompute", "ship-kv"]


def run_in(mode: str, **changes: Any) -> tuple[World, list[Event]]:
    policy = {"kind": "static", "split": SPLIT, "codec": "int8", "mode": mode}
    return run_world(scenario(policy=policy, kv=KV_5, **changes))


def sizes(events: list[Event], direction: str) -> list[int]:
    return [event.payload_bytes for event in of_kind(events, TransferEnded, direction=direction)]


def test_bytes_that_cross_by_hand() -> None:
    one = HIDDEN + 4  # int8: codes and a scale
    assert RECORD == 2 * ((2 * 9 * 5 + 7) // 8 + 4)  # one KV head of 8
    up = {mode: sizes(run_in(mode)[1], "up") for mode in MODES}
    down = {mode: sizes(run_in(mode)[1], "down") for mode in MODES}
    assert up["stateful"] == [24 + new * one for new, _ in PASSES]
    assert up["recompute"] == [24 + (past + new) * one for new, past in PASSES]
    assert up["ship-kv"] == [24 + new * one + (24 + past * RECORD if past else 0) for new, past in PASSES]
    assert down["stateful"] == down["recompute"] == [4] * OUTPUT
    assert down["ship-kv"] == [4 + 24 + new * RECORD for new, _ in PASSES]


def test_shipped_and_recomputed_bytes_are_as_far_apart_as_the_method_says() -> None:
    """At equal bits, heads as wide as the model and w large, all of B_kv is 2 L times the hidden states of w tokens."""
    shape, tokens = resolve("llama-2-7b").shape, 10_000
    assert shape.state_bits(tokens, 16, 8, 8) / (tokens * shape.hidden_size * 8) == pytest.approx(2 * 32, rel=1e-3)
    behind = kv_message_bytes(tokens, server_kv_bytes(shape, 16, 1, 8))
    assert behind / shape.hidden_bytes(tokens, 8) == pytest.approx(2 * 16, rel=1e-3)  # ours: layers behind the cut


@pytest.mark.parametrize("mode", MODES)
def test_what_each_side_holds(mode: str) -> None:
    world, events = run_in(mode)
    tokens = PROMPT + OUTPUT
    kept = {"stateful": 0, "recompute": tokens * HIDDEN * 4, "ship-kv": tokens * RECORD}[mode]
    front = edge_demand(TINY, SPLIT, tokens, 32, KVFormat(bits=3)).total_bytes
    assert world.devices[0].peak_memory_bytes == front + kept
    held = [event.kv_tokens for event in of_kind(events, IterationEnded)]
    assert held == ([past + new for new, past in PASSES] if mode == "stateful" else [0] * OUTPUT)
    assert world.server_ends(world.clock.now_ns)[0].peak_kv_bytes == tokens * RECORD  # while a pass runs


@pytest.mark.parametrize("mode", MODES)
def test_the_server_computes_what_it_does_not_keep(mode: str) -> None:
    built = scenario(kv=KV_5)
    on_server = CostModel(profile=built.servers[0].server, shape=TINY, weight_bits=32, kv_bits=KVFormat(bits=5))
    backs = [end - start for _, hop, start, end in spans_of(run_in(mode)[1]) if hop == "back"]
    redone = [(past + new, 0) if mode == "recompute" else (new, past) for new, past in PASSES]
    works = [Work(start=SPLIT, stop=LAYERS, new_tokens=new, past_tokens=past) for new, past in redone]
    assert backs == [on_server.forward_ns([work]) for work in works]


def test_nothing_is_reserved_between_steps() -> None:
    """Room for one sequence: others get their turn between the passes of a first one that the server does not keep."""
    room = server_weights_bytes(TINY, [SPLIT], 32) + int(1.5 * (PROMPT + OUTPUT) * RECORD)
    servers = [{"server": server(memory=f"{room + 1_000_000} B", memory_bandwidth="1 MB/s")}]
    order = {}
    for mode in MODES:
        _, events = run_in(mode, servers=servers, fleet=[group(count=3)])
        backs = sorted(
            (start, request) for request in range(3) for _, hop, start, _ in spans_of(events, request) if hop == "back"
        )
        order[mode] = [request for _, request in backs]
        assert all(event.num_sequences == 1 for event in of_kind(events, IterationEnded))
    assert order["stateful"] == [0] * OUTPUT + [1] * OUTPUT + [2] * OUTPUT
    assert order["recompute"][:3] == order["ship-kv"][:3] == [0, 1, 2]


@pytest.mark.parametrize("split", [0, 16])
def test_a_mode_without_a_cut_is_refused(tmp_path: Path, split: int) -> None:
    policy = {"kind": "static", "split": split, "mode": "recompute"}
    done = call("validate", write(tmp_path / "case.yaml", tiny(("policy", policy))))
    assert done.code == 2
    assert "policy.mode: with split" in done.err
    assert "allowed: stateful" in done.err


def test_an_unknown_mode_is_refused_and_the_default_changes_no_name(tmp_path: Path) -> None:
    policies = [{"kind": "static", "split": 4}, {"kind": "static", "split": 4, "mode": "stateful"}]
    policies.append({"kind": "static", "split": 4, "mode": "ship-kv"})
    files = [write(tmp_path / f"{place}.yaml", tiny(("policy", item))) for place, item in enumerate(policies)]
    names = [fingerprint(load_scenario(file)) for file in files]
    assert names[0] == names[1] != names[2]
    done = call("validate", write(tmp_path / "case.yaml", tiny(("policy", {**policies[0], "mode": "stateles"}))))
    assert done.code == 2
    assert "policy.mode: not one of the choices (got 'stateles')" in done.err


@given(st.integers(0, 2**32 - 1))
def test_keys_and_values_from_the_wire_are_right_or_refused(seed: int) -> None:
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, size=(3, 7, 20), dtype=np.uint8)
    envelope, expected = Envelope(session=9, split=2, mode=1), {"num_layers": 3, "num_tokens": 7, "record_bytes": 20}
    message = pack_kv(records, envelope)
    assert len(message) == kv_message_bytes(7, 3 * 20)
    assert np.array_equal(unpack_kv(message, envelope, **expected), records)
    try:
        found = unpack_kv(mutated(message, rng), envelope, **expected)
    except CodecError:
        return
    assert found.shape == records.shape  # resealed by whoever altered it, with sizes that are right
