"""The summary's figures against sums done by hand and by NumPy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.core.cast import RunEnd
from testbed.core.events import HOPS
from testbed.results import files
from testbed.results.folder import Tables, read_run, read_tables
from testbed.results.measure import SloLimits, goodput, summarise
from tests.unit.fake_runs import GROUPS, FakeGroup, fake_run, write_run

MS = 1_000_000
END = RunEnd(
    end_ns=10_000 * MS,
    complete=True,
    reason="",
    deterministic=True,
    wall_s=1.5,
    devices=[],
    servers=[],
    links=[],
    assumed_sizes=[],
    quality={},
    texts={},
)
KEYS = {
    *(
        "engine",
        "event_digest",
        "result_digest",
        "deterministic",
        "complete",
        "reason",
        "cells",
        "edges",
        "assumed_sizes",
        "fitted_sizes",
        "profile_tables",
        "calibration",
        "completed",
        "oom",
        "failed",
        "link_timeout",
        "authentication",
        "battery",
        "thermal",
        "churn",
        "server_failure",
        "rejected",
        "incomplete",
    ),
    *("ttft_s", "tpot_s", "e2e_s", "goodput", "tokens_per_s", "bytes_up", "bytes_down", "wire_bytes_up"),
    *("wire_bytes_down", "retransmissions", "servers", "energy_j", "breakdown_s", "quality", "by_group", "by_kind"),
    *(
        "duration_s",
        "wall_s",
        "encryption",
        "codec_changes",
        "preemptions",
        "swapped_bytes",
        "recomputed_tokens",
        "prefix_tokens",
        "requeues",
        "operation",
        "cost",
        "device_energy_j",
        "device_state",
    ),
}


def _request(number: int, **changes: Any) -> dict[str, Any]:
    """A completed request: arrives at 0, first token at 100 ms, then nine more 20 ms apart."""
    row: dict[str, Any] = {
        **dict.fromkeys(files.REQUEST_SCHEMA.names),
        **{files.hop_column(hop): 0 for hop in HOPS},
        **dict.fromkeys(("payload_bytes_up", "payload_bytes_down", "wire_bytes_up", "wire_bytes_down"), 0),
        "request": number,
        "group": "edge",
        "device": 0,
        "device_kind": "pi",
        "real": False,
        "reason": "",
        "outcome": "completed",
        "output_tokens": 10,
        "prompt_tokens": 5,
        "retransmissions": 0,
        "arrival_ns": 0,
        "first_token_ns": 100 * MS,
        "last_token_ns": 280 * MS,
        "end_ns": 280 * MS,
        **changes,
    }
    if row["outcome"] == "completed":
        row["ttft_s"] = (row["first_token_ns"] - row["arrival_ns"]) / 1e9
        row["e2e_s"] = (row["end_ns"] - row["arrival_ns"]) / 1e9
        if row["output_tokens"] > 1:
            row["tpot_s"] = (row["last_token_ns"] - row["first_token_ns"]) / (row["output_tokens"] - 1) / 1e9
    return row


def _tables(requests: list[dict[str, Any]], iterations: list[dict[str, Any]] | None = None) -> Tables:
    device = {"device": 0, "group": "edge", "kind": "pi", "real": False, "energy_j": 5.0}
    servers = [{"server": 0, "group": "cloud", "kind": "l4", "iterations": 4, "busy_ns": 2_500 * MS, "energy_j": 7.0}]
    return Tables(
        requests=pa.Table.from_pylist(requests, schema=files.REQUEST_SCHEMA),
        servers=pa.Table.from_pylist(iterations or [], schema=files.SERVER_SCHEMA),
        server_totals=pa.Table.from_pylist(servers, schema=files.SERVER_TOTAL_SCHEMA),
        links=pa.Table.from_pylist([], schema=files.LINK_SCHEMA),
        devices=pa.Table.from_pylist([device], schema=files.DEVICE_SCHEMA),
    )


def _summary(requests: list[dict[str, Any]], slo: SloLimits | None = None, **changes: Any) -> dict[str, Any]:
    return summarise(_tables(requests), end=replace(END, **changes), event_digest="d", slo=slo)


def test_the_summary_has_these_keys_and_no_other() -> None:
    assert set(_summary([])) == KEYS


def test_latencies_by_hand() -> None:
    # TTFT 100, 200, 300, 400 ms: p50 lies half-way between the middle two, p95 at position 2.85.
    rows = [_request(k, first_token_ns=k * 100 * MS, last_token_ns=k * 100 * MS + 90 * MS) for k in (1, 2, 3, 4)]
    ttft = _summary(rows)["ttft_s"]
    assert ttft == {
        "mean": pytest.approx(0.25),
        "p50": pytest.approx(0.25),
        "p95": pytest.approx(0.385),
        "p99": pytest.approx(0.397),
    }
    assert _summary(rows)["tpot_s"]["mean"] == pytest.approx(0.01)


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=60))
def test_percentiles_are_numpys(ttft_ns: list[int]) -> None:
    rows = [_request(k, first_token_ns=ns, last_token_ns=ns, end_ns=ns) for k, ns in enumerate(ttft_ns)]
    found = _summary(rows)["ttft_s"]
    seconds = np.array(ttft_ns) / 1e9
    expected = [seconds.mean(), *np.percentile(seconds, [50, 95, 99])]
    np.testing.assert_allclose([found[k] for k in ("mean", "p50", "p95", "p99")], expected, rtol=1e-12)


@pytest.mark.parametrize("outcome", ["oom", "failed", "link_timeout", "authentication", "incomplete"])
def test_only_completed_requests_count_as_latency(outcome: str) -> None:
    late = {"first_token_ns": 9_000 * MS, "ttft_s": 9.0, "tpot_s": 9.0, "e2e_s": 9.0, "end_ns": 9_000 * MS}
    alone = _summary([_request(0)])
    both = _summary([_request(0), _request(1, outcome=outcome, **late)])
    for name in ("ttft_s", "tpot_s", "e2e_s", "breakdown_s"):
        assert both[name] == alone[name]
    assert both[outcome] == 1
    assert both["completed"] == 1


def test_one_token_has_no_tpot() -> None:
    single = _request(1, output_tokens=1, last_token_ns=100 * MS)
    assert _summary([_request(0), single])["tpot_s"] == _summary([_request(0)])["tpot_s"]
    assert _summary([single])["tpot_s"] is None


def test_without_a_completed_request_there_are_no_latencies() -> None:
    summary = _summary([_request(0, outcome="oom", output_tokens=0)])
    assert [summary[name] for name in ("ttft_s", "tpot_s", "e2e_s", "breakdown_s")] == [None] * 4
    assert summary["oom"] == 1


def test_goodput_is_within_both_limits_to_the_nanosecond() -> None:
    slo = SloLimits(ttft_ns=100 * MS, tpot_ns=20 * MS)
    rows = [
        _request(0),  # exactly on both limits
        _request(1, first_token_ns=100 * MS + 1),
        _request(2, last_token_ns=280 * MS + 1),
        _request(3, output_tokens=1, last_token_ns=100 * MS),  # no TPOT to miss
        _request(4, outcome="oom", first_token_ns=None, last_token_ns=None, output_tokens=0),
    ]
    found = _summary(rows, slo)["goodput"]
    assert (found["requests"], found["share"], found["requests_per_s"]) == (2, 2 / 5, 0.2)
    assert (found["slo_ttft_s"], found["slo_tpot_s"]) == (0.1, 0.02)
    assert _summary(rows)["goodput"] is None
    assert goodput(_tables([]).requests, slo, 0.0)["share"] is None


def test_tokens_and_traffic_are_of_all_requests() -> None:
    up = {"payload_bytes_up": 100, "wire_bytes_up": 140, "payload_bytes_down": 4, "wire_bytes_down": 44}
    rows = [_request(0, **up, retransmissions=1), _request(1, **up, outcome="failed", output_tokens=5)]
    summary = _summary(rows)
    assert summary["tokens_per_s"] == 1.5
    assert [summary[k] for k in ("bytes_up", "bytes_down", "wire_bytes_up", "wire_bytes_down")] == [200, 8, 280, 88]
    assert summary["retransmissions"] == 1
    assert summary["by_group"]["edge"]["bytes_per_token_up"] == 200 / 15


def test_breakdown_shares_add_up_to_one() -> None:
    rows = [_request(k, hop_front_ns=100 * MS, hop_back_ns=(50 + 100 * k) * MS) for k in (0, 1)]
    found = _summary(rows)["breakdown_s"]
    assert found["front"] == {"mean_s": pytest.approx(0.1), "share": pytest.approx(0.5)}
    assert found["back"] == {"mean_s": pytest.approx(0.1), "share": pytest.approx(0.5)}
    assert sum(entry["share"] for entry in found.values()) == pytest.approx(1)
    assert set(found) == set(HOPS)


def test_servers_utilisation_batch_and_energy() -> None:
    sizes = [1, 2, 3, 10]
    iterations = [
        {**dict.fromkeys(files.SERVER_SCHEMA.names, 0), "iteration": k, "num_sequences": size}
        for k, size in enumerate(sizes)
    ]
    summary = summarise(_tables([], iterations), end=END, event_digest="d", slo=None)
    servers = summary["servers"]
    assert servers["utilisation"] == 0.25
    assert servers["batch_size"] == {"mean": 4.0, "p95": pytest.approx(3 + 0.85 * 7), "max": 10}
    assert servers["each"][0]["batch_size"] == servers["batch_size"]
    assert summary["energy_j"] == {"devices": {"pi": 5.0}, "servers": {"l4": 7.0}}


def test_quality_counts_each_compared_token_once() -> None:
    rows = [
        _request(0, compared_tokens=30, agreeing_tokens=30, max_logit_difference=0.5),
        _request(1, compared_tokens=10, agreeing_tokens=5, max_logit_difference=2.0),
        _request(2),
    ]
    assert _summary(rows)["quality"] == {
        "requests": 2,
        "tokens": 40,
        "token_agreement": 35 / 40,
        "max_logit_difference": 2.0,
    }
    assert _summary(rows[2:])["quality"] is None


def test_no_time_passed_gives_no_rates() -> None:
    summary = _summary([], end_ns=0)
    assert summary["tokens_per_s"] is None
    assert summary["servers"]["utilisation"] is None


def test_groups_add_up_to_the_whole(tmp_path: Path) -> None:
    summary: dict[str, Any] = write_run(tmp_path, fake_run())
    groups = summary["by_group"]
    assert list(groups) == [group.name for group in GROUPS]
    for outcome in ("completed", "oom", "failed", "link_timeout", "authentication", "incomplete"):
        assert sum(group[outcome] for group in groups.values()) == summary[outcome]
    assert groups["pi-real"]["quality"] == summary["quality"]
    assert (groups["pi-real"]["real"], groups["phones"]["real"], groups["phones"]["quality"]) == (True, False, None)
    requests = read_tables(tmp_path).requests.to_pylist()
    mine = [r["ttft_s"] for r in requests if r["group"] == "phones" and r["outcome"] == "completed"]
    assert groups["phones"]["ttft_s"]["p95"] == pytest.approx(float(np.percentile(mine, 95)))


def test_an_edge_only_run_has_no_server(tmp_path: Path) -> None:
    groups = (FakeGroup(name="edge", kind="pi", count=2, edge_only=True),)
    summary: dict[str, Any] = write_run(tmp_path, fake_run(groups, num_servers=0))
    assert summary["servers"] == {"count": 0, "iterations": 0, "utilisation": None, "batch_size": None, "each": []}
    assert summary["bytes_up"] == 0
    assert summary["energy_j"]["servers"] == {}


def test_two_runs_write_the_same_summary_apart_from_wall_time(tmp_path: Path) -> None:
    run = fake_run()
    write_run(tmp_path / "a", run)
    run.end = replace(run.end, wall_s=99.0)
    write_run(tmp_path / "b", run)
    one, other = ((tmp_path / name / files.SUMMARY).read_text() for name in "ab")
    assert one != other
    assert [a for a, b in zip(one.splitlines(), other.splitlines(), strict=True) if a != b] == ['  "wall_s": 3.25,']


def test_the_summary_on_disk_is_the_one_returned(tmp_path: Path) -> None:
    summary = write_run(tmp_path, fake_run())
    assert read_run(tmp_path).summary == json.loads(json.dumps(summary))


def test_a_logit_difference_that_is_no_number_is_shown_not_hidden(tmp_path: Path) -> None:
    run = fake_run(requests_per_device=1)
    broken = {key: replace(value, max_logit_difference=float("nan")) for key, value in run.end.quality.items()}
    run.end = replace(run.end, quality=broken)
    write_run(tmp_path, run)
    assert np.isnan(read_run(tmp_path).summary["quality"]["max_logit_difference"])
