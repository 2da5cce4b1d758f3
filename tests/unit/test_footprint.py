"""The method's memory figures in a run's summary, against its formulas written out for Llama 2 7B."""

from __future__ import annotations

import json
from pathlib import Path

from testbed.actors.memory import edge_demand
from testbed.models.source import resolve
from testbed.scenarios.load import load_scenario
from testbed.sim.footprint import footprint, footprints
from testbed.sim.requests import Workloads

from .tiny_scenario import call, tiny, write

LLAMA_7B = resolve("llama-2-7b").shape
LAYER, DIM, TABLE = 202_375_168, 4096, 32_000 * 4096


def test_the_methods_formulas_by_hand(tmp_path: Path) -> None:
    changes = [
        ("model", "llama-2-7b"),
        ("dtype", "float16"),
        ("weights", {"front_bits": 4, "back_bits": 8, "group_size": 128}),
        ("kv", {"front_bits": 4}),
    ]
    scenario = load_scenario(write(tmp_path / "case.yaml", tiny(*changes)))
    found = footprint(scenario, LLAMA_7B, 10, 300)
    assert found.footprint_bits == 10 * (LAYER * 4 + LAYER // 128 * 20) + 22 * (LAYER * 8 + LAYER // 128 * 24)
    assert found.state_bits == 2 * 10 * 300 * DIM * 4 + 2 * 22 * 299 * DIM * 16 + DIM * 4
    record = (2 * DIM * 4 + 64 * 4 + 64 * 16) // 8
    layers = 10 * ((LAYER * 4 + LAYER // 128 * 20) // 8 + 2 * DIM * 2)
    work = 300 * (2 * DIM + 3 * 11008) * 2
    assert found.edge_bytes == TABLE * 2 + layers + 300 * 10 * record + work
    plain = footprint(load_scenario(write(tmp_path / "plain.yaml", tiny(*changes[:2]))), LLAMA_7B, 32, 1)
    assert plain.footprint_bits == 32 * LAYER * 16
    assert plain.state_bits == 32 * 2 * DIM * 16 + DIM * 16  # 512 KiB of KV a token, and one hidden state
    assert plain.edge_bytes == edge_demand(LLAMA_7B, 32, 1, 16, 16).total_bytes


def test_the_longest_request_of_every_group_at_every_split(tmp_path: Path) -> None:
    fleet = [{"name": name, "device": "raspberry-pi-5", "count": 2, "link": "wifi"} for name in ("a", "b")]
    fleet[1] |= {"policy": "edge-only"}
    lengths = {"kind": "random", "length": {"law": "uniform", "low": 2, "high": 90}}
    scenario = load_scenario(write(tmp_path / "case.yaml", tiny(("fleet", fleet), ("workload.prompts", lengths))))
    shape = resolve("llama-3.2-1b").shape
    requests = Workloads(scenario, vocab_size=shape.vocab_size, tokenizer=dict).requests()  # no text to encode
    found = footprints(scenario, shape, requests)
    for group, name in enumerate("ab"):
        longest = max(item.num_prompt_tokens for item in requests if item.group == group) + 4
        assert [(item.split, item.tokens) for item in found[name]] == [((4, shape.num_layers)[group], longest)]


def test_a_run_leaves_them_in_its_summary_and_report(tmp_path: Path) -> None:
    done = call("run", write(tmp_path / "case.yaml", tiny()), "--out", tmp_path / "run")
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    (memory,) = summary["by_group"]["pis"]["memory"]
    assert (memory["split"], memory["tokens"]) == (4, 12)
    assert memory["edge_bytes"] == max(device_peaks(tmp_path / "run"))
    assert "state at the cut (B_kv)" in (tmp_path / "run" / "report.html").read_text()


def device_peaks(folder: Path) -> list[int]:
    import pyarrow.parquet

    peaks: list[int] = pyarrow.parquet.read_table(folder / "devices.parquet")["peak_memory_bytes"].to_pylist()
    return peaks
