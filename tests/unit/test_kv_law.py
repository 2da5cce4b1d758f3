"""What packed keys and values take, by hand, in every demand that counts them; and the scenario key that sets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from testbed.actors.costs import CostModel
from testbed.actors.kv import kv_bytes, kv_laws
from testbed.actors.memory import edge_demand, largest_split, server_kv_bytes
from testbed.core.work import Work
from testbed.models.kv_format import KVFormat
from testbed.models.source import resolve
from testbed.scenarios.fingerprint import fingerprint
from testbed.scenarios.kv import KV
from testbed.scenarios.load import load_profile, load_scenario
from tests.sim_runs import TINY, device, group, run_world, scenario, server

from .tiny_scenario import call, tiny, write

LLAMA_7B = resolve("llama-2-7b").shape
KV4, KV8 = KVFormat(bits=4), KVFormat(bits=8)
# A token's key and value in a layer of 32 heads of 128: codes, 64 zero points, 64 half-precision scales.
RECORD_4 = (2 * 32 * 128 * 4 + 64 * 4 + 64 * 16) // 8
RECORD_8 = (2 * 32 * 128 * 8 + 64 * 8 + 64 * 16) // 8


def test_llama_by_hand() -> None:
    assert KV4.token_bytes(LLAMA_7B) == RECORD_4 == 4256
    assert kv_bytes(LLAMA_7B, 1, 0, 32, 16) == 512 * 1024  # the published check value
    assert kv_bytes(LLAMA_7B, 1, 0, 32, KV4) == 32 * RECORD_4
    bits_a_value = 4 + (16 + 4) / 128
    assert kv_bytes(LLAMA_7B, 1, 0, 32, bits_a_value) == 32 * RECORD_4


@pytest.mark.parametrize("cut", [0, 1, 17, 32])
def test_layers_and_tokens_add_up(cut: int) -> None:
    whole = kv_bytes(LLAMA_7B, 70, 0, 32, KV4)
    assert kv_bytes(LLAMA_7B, 70, 0, cut, KV4) + kv_bytes(LLAMA_7B, 70, cut, 32, KV4) == whole
    assert 70 * kv_bytes(LLAMA_7B, 1, 0, 32, KV4) == whole


def test_a_record_fills_its_last_byte() -> None:
    """One KV head of 8: 2 x 9 codes of 3 bits are 54 bits, and two scales."""
    assert KVFormat(bits=3).token_bytes(TINY) == 7 + 4


def test_each_side_counts_its_own_bits() -> None:
    front, back = kv_laws(KV(front_bits=4, back_bits=8), 16)
    assert (front, back) == (KV4, KV8)
    assert kv_laws(None, 32) == (32, 32)
    assert kv_laws(KV(back_bits=8), 16) == (16, KV8)
    packed, plain = edge_demand(LLAMA_7B, 16, 2048, 4, front), edge_demand(LLAMA_7B, 16, 2048, 4, 16)
    assert packed.kv_bytes == 2048 * 16 * RECORD_4
    assert plain.total_bytes - packed.total_bytes == 2048 * 16 * (16 * 1024 - RECORD_4)
    assert server_kv_bytes(LLAMA_7B, 12, 300, back) == 300 * 20 * RECORD_8
    pi = load_profile("device", "raspberry-pi-5")
    # Of 7,000 MB, 65.5 are the table and 42.2 activations; a layer takes 101.2, its keys and values 196.6 or 51.1.
    assert largest_split(pi, LLAMA_7B, 12_000, 4, 16) == 23
    assert largest_split(pi, LLAMA_7B, 12_000, 4, front) == 32


def test_a_decode_step_reads_the_packed_bytes() -> None:
    """Bound by memory: a layer moves the history's records, and writes one."""
    pi = load_profile("device", "raspberry-pi-5")
    step = Work(start=0, stop=1, new_tokens=1, past_tokens=1000)
    times = [CostModel(profile=pi, shape=LLAMA_7B, weight_bits=16, kv_bits=law).forward_ns([step]) for law in (16, KV4)]
    saved_bytes = 1002 * (16 * 1024 - RECORD_4)
    assert times[0] - times[1] == pytest.approx(saved_bytes / pi.memory_bandwidth * 1e9, abs=2)


def test_a_run_reserves_and_claims_what_the_law_says() -> None:
    built = scenario(kv={"front_bits": 3, "back_bits": 5})
    world, _ = run_world(built)
    tokens, back = 5 + 4, KVFormat(bits=5)
    assert world.devices[0].peak_memory_bytes == edge_demand(TINY, 2, tokens, 32, KVFormat(bits=3)).total_bytes
    assert world.server_ends(world.clock.now_ns)[0].peak_kv_bytes == tokens * 2 * back.token_bytes(TINY)


def test_a_device_too_small_for_plain_keys_and_values_holds_packed_ones() -> None:
    tokens = 5 + 4
    room = edge_demand(TINY, 2, tokens, 32, KV4).total_bytes
    boards = [group(device=device(memory=f"{room + 1_000_000} B"))]
    for kv, outcome in (({"front_bits": 4}, "completed"), ({"back_bits": 4}, "oom"), (None, "oom")):
        _, events = run_world(scenario(fleet=boards, kv=kv, servers=[{"server": server()}]))
        assert events[-1].outcome == outcome


@pytest.mark.parametrize(
    ("kv", "expected"),
    [
        ({"front_bits": 7}, "kv.front_bits: not one of the choices (got 7); allowed: 2, 3, 4, 5, 6, 8"),
        ({"back_bits": 16}, "kv.back_bits: not one of the choices (got 16); allowed: 2, 3, 4, 5, 6, 8"),
        ({"front": 4}, "kv.front: unknown key"),
        (4, "kv: a mapping is expected"),
    ],
)
def test_what_is_refused(tmp_path: Path, kv: Any, expected: str) -> None:
    done = call("validate", write(tmp_path / "case.yaml", tiny(("kv", kv))))
    assert done.code == 2
    assert done.err.strip().partition("case.yaml: ")[2].startswith(expected)


def test_how_keys_and_values_are_stored_is_part_of_what_a_scenario_means(tmp_path: Path) -> None:
    changes: list[Any] = [(), (("kv", None),), (("kv", {"front_bits": 4}),)]
    files = [write(tmp_path / f"{index}.yaml", tiny(*change)) for index, change in enumerate(changes)]
    names = [fingerprint(load_scenario(file)) for file in files]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(("overrides", "outcome"), [([], "completed"), (["weights=null", "kv=null"], "oom")])
def test_the_shipped_scenario_fits_only_packed(tmp_path: Path, overrides: list[str], outcome: str) -> None:
    """The same memory and requests, here without computing."""
    options = [item for override in [*overrides, "fleet.0.compute=modelled"] for item in ("-o", override)]
    done = call("run", "kv-packed", *options, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary[outcome] == 4
