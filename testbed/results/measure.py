"""What a run amounts to: pure functions from its tables to its summary. docs/metrics.md defines every figure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from testbed.core.cast import DeviceEnd, Footprint, RunEnd, ServerEnd
from testbed.core.events import HOPS, Outcome
from testbed.core.units import BITS_PER_BYTE, NS_PER_S
from testbed.results import files
from testbed.results.cluster import costs, operation
from testbed.results.device_state import ENERGY_STATES, device_state, energy_by_state
from testbed.results.digest import result_digest
from testbed.results.folder import Tables, open_tables
from testbed.results.server_load import server_load

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
PERCENTILES = (50, 95, 99)
LATENCIES = ("ttft_s", "tpot_s", "e2e_s")
TRAFFIC = {
    "bytes_up": "payload_bytes_up",
    "bytes_down": "payload_bytes_down",
    "wire_bytes_up": "wire_bytes_up",
    "wire_bytes_down": "wire_bytes_down",
    "retransmissions": "retransmissions",
    "codec_changes": "codec_changes",
    "preemptions": "preemptions",
    "swapped_bytes": "swapped_bytes",
    "recomputed_tokens": "recomputed_tokens",
    "prefix_tokens": "prefix_tokens",
    "requeues": "requeues",
}
_REQUEST_COLUMNS = (
    *("group", "kind", "outcome", "arrival_ns", "first_token_ns", "last_token_ns", "prompt_tokens", "output_tokens"),
    *LATENCIES,
    *TRAFFIC.values(),
    *map(files.hop_column, HOPS),
    *("compared_tokens", "agreeing_tokens", "max_logit_difference"),
)
_GOODPUT_COLUMNS = ("outcome", "arrival_ns", "first_token_ns", "last_token_ns", "output_tokens")
_DEVICE_COLUMNS = (
    *("group", "kind", "real", "energy_j", "busy_ns", *ENERGY_STATES),
    *("asleep_ns", "off_ns", "throttled_ns", "departures", "battery_capacity_j", "battery_end_j", "charged_j"),
    *("cutoffs", "max_temperature_c", "shutdowns"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SloLimits:
    """A request is good when it completed within both limits."""

    ttft_ns: int
    tpot_ns: int


def summarise(tables: Tables, *, end: RunEnd, event_digest: str | None, slo: SloLimits | None) -> dict[str, Any]:
    """Plain data for summary.json. Only `wall_s` may differ between two runs of one deterministic scenario."""
    digest = result_digest(tables)  # first: it reads every column once, one at a time
    requests, devices = tables.requests.select(_REQUEST_COLUMNS), tables.devices.select(_DEVICE_COLUMNS)
    completed = _with_outcome(requests, Outcome.COMPLETED)
    duration_s = end.end_ns / NS_PER_S
    return {
        "event_digest": event_digest,
        "result_digest": digest,
        "engine": asdict(end.engine),
        "deterministic": end.deterministic,
        "complete": end.complete,
        "reason": end.reason,
        **_outcomes(requests),
        **{name: _spread(_floats(completed, name)) for name in LATENCIES},
        "goodput": None if slo is None else goodput(requests, slo, duration_s),
        "tokens_per_s": _ratio(_total(requests, "output_tokens"), duration_s),
        **{name: _total(requests, column) for name, column in TRAFFIC.items()},
        "servers": server_load(tables, end.end_ns),
        "operation": operation(tables.server_totals, tables.server_states, tables.scale_events, end.end_ns),
        "cost": costs(tables.server_totals, requests, completed.num_rows),
        "edges": edges(tables.edges, end.end_ns),
        "cells": cells(end),
        "energy_j": {
            "devices": _sum_by_kind(devices, "energy_j"),
            "servers": _sum_by_kind(tables.server_totals, "energy_j"),
        },
        "device_energy_j": energy_by_state(devices),
        "device_state": device_state(devices, end.end_ns),
        "encryption": encryption(end),
        "breakdown_s": breakdown(completed),
        "calibration": None if end.calibration is None else asdict(end.calibration),
        "assumed_sizes": list(end.assumed_sizes),
        "fitted_sizes": [asdict(fitted) for fitted in end.fitted_sizes],
        "profile_tables": [asdict(use) for use in end.profile_tables],
        "quality": quality(requests),
        "by_group": _by_group(requests, devices, end),
        "by_kind": by_kind(requests),
        "duration_s": duration_s,
        "wall_s": end.wall_s,
    }


def write_summary(folder: Path, *, end: RunEnd, event_digest: str | None, slo: SloLimits | None) -> dict[str, Any]:
    """Measure a run folder's tables and leave summary.json beside them; the same text for the same figures."""
    summary = summarise(open_tables(folder), end=end, event_digest=event_digest, slo=slo)
    # A logit difference that is no number stands as NaN: a broken model's run still ends with its results written.
    text = json.dumps(summary, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / files.SUMMARY).write_text(text + "\n", encoding="utf-8")
    return summary


def goodput(requests: pa.Table, slo: SloLimits, duration_s: float) -> dict[str, Any]:
    """Completed requests within both limits, compared in whole nanoseconds; one token alone has no TPOT to miss."""
    done = _with_outcome(requests.select(_GOODPUT_COLUMNS), Outcome.COMPLETED)
    done = done.filter(pc.is_valid(done["first_token_ns"]))
    first, last = _ints(done, "first_token_ns"), _ints(done, "last_token_ns")
    gaps = _ints(done, "output_tokens") - 1
    good = (first - _ints(done, "arrival_ns") <= slo.ttft_ns) & (last - first <= gaps * slo.tpot_ns)
    count = int(good.sum())
    return {
        "slo_ttft_s": slo.ttft_ns / NS_PER_S,
        "slo_tpot_s": slo.tpot_ns / NS_PER_S,
        "requests": count,
        "requests_per_s": _ratio(count, duration_s),
        "share": _ratio(count, requests.num_rows),
    }


def edges(table: pa.Table | None, end_ns: int) -> dict[str, Any] | None:
    """Load of the topology, each direction of an edge for itself; None where there is no topology."""
    if table is None:
        return None
    each = [
        {
            "source": row["source"],
            "target": row["target"],
            "utilisation": _ratio(row["busy_ns"], end_ns),
            "carried_bytes": row["carried_bytes"],
            "dropped_packets": row["dropped_packets"],
            "lost_packets": row["lost_packets"],
            "failed_packets": row["failed_packets"],
            "peak_backlog_bytes": row["peak_backlog_bytes"],
            "down_share": _ratio(row["down_ns"], end_ns),
        }
        for row in table.to_pylist()
    ]
    totals = ("carried_bytes", "dropped_packets", "lost_packets", "failed_packets")
    return {"count": table.num_rows, **{name: _total(table, name) for name in totals}, "each": each}


def cells(end: RunEnd) -> list[dict[str, Any]] | None:
    """How busy each cell's air was, and how many links shared it while it was; None where there is no cell."""
    return [
        {
            "cell": entry.cell,
            "direction": entry.direction,
            "links": entry.num_links,
            "utilisation": _ratio(entry.busy_ns, end.end_ns),
            "contending": _ratio(entry.contending_ns, entry.busy_ns),
            "carried_bytes": entry.carried_bytes,
        }
        for entry in end.cells
    ] or None


def breakdown(completed: pa.Table) -> dict[str, Any] | None:
    """Where the time of the completed requests went: mean per request, and share of their total time."""
    if completed.num_rows == 0:
        return None
    sums = {str(hop): _total(completed, files.hop_column(hop)) for hop in HOPS}
    total_ns = sum(sums.values())
    return {
        hop: {"mean_s": sum_ns / completed.num_rows / NS_PER_S, "share": _ratio(sum_ns, total_ns)}
        for hop, sum_ns in sums.items()
    }


def quality(requests: pa.Table) -> dict[str, Any] | None:
    """Real requests against the unsplit model, each compared token counting once; None where none was compared."""
    compared = requests.filter(pc.is_valid(requests["compared_tokens"]))
    if compared.num_rows == 0:
        return None
    num_tokens = _total(compared, "compared_tokens")
    return {
        "requests": compared.num_rows,
        "tokens": num_tokens,
        "token_agreement": _ratio(_total(compared, "agreeing_tokens"), num_tokens),
        "max_logit_difference": float(_floats(compared, "max_logit_difference").max()),
    }


def encryption(end: RunEnd) -> dict[str, Any] | None:
    """What sealing every message added: bytes, processor time, and energy above idling; None where none was."""
    if end.sealing is None:
        return None
    counted = {way: sum(link.messages for link in end.links if link.direction == way) for way in ("up", "down")}
    ends: dict[str, Sequence[DeviceEnd | ServerEnd]] = {"devices": end.devices, "servers": end.servers}
    return {
        "suite": end.sealing.suite,
        **{f"messages_{way}": count for way, count in counted.items()},
        **{f"bytes_{way}": count * end.sealing.overhead_bytes for way, count in counted.items()},
        "time_s": {name: sum(entry.seal_ns for entry in entries) / NS_PER_S for name, entries in ends.items()},
        "energy_j": {name: math.fsum(entry.seal_j for entry in entries) for name, entries in ends.items()},
    }


def by_kind(requests: pa.Table) -> dict[str, Any] | None:
    """Outcomes, latencies and tokens of each kind of request; None where there are not at least two."""
    names = sorted(requests["kind"].drop_null().unique().to_pylist())
    if len(names) < 2:  # noqa: PLR2004 - one kind is all of them
        return None
    return {name: _kind(_equal(requests, "kind", name)) for name in names}


def _kind(requests: pa.Table) -> dict[str, Any]:
    completed = _with_outcome(requests, Outcome.COMPLETED)
    return {
        "requests": requests.num_rows,
        **_outcomes(requests),
        **{name: _spread(_floats(completed, name)) for name in LATENCIES},
        "prompt_tokens": _total(requests, "prompt_tokens"),
        "output_tokens": _total(requests, "output_tokens"),
    }


def _outcomes(requests: pa.Table) -> dict[str, int]:
    found = {item["values"]: item["counts"] for item in requests["outcome"].value_counts().to_pylist()}
    return {str(outcome): found.get(str(outcome), 0) for outcome in Outcome}


def _by_group(requests: pa.Table, devices: pa.Table, end: RunEnd) -> dict[str, Any]:
    groups = devices["group"].unique().to_pylist()  # in the order of the fleet
    return {
        group: _group(_equal(requests, "group", group), _equal(devices, "group", group))
        | {"device_state": device_state(_equal(devices, "group", group), end.end_ns)}
        | {"memory": [_memory(item) for item in end.footprints.get(group, ())]}
        for group in groups
    }


def _group(requests: pa.Table, devices: pa.Table) -> dict[str, Any]:
    completed = _with_outcome(requests, Outcome.COMPLETED)
    num_tokens = _total(requests, "output_tokens")
    return {
        "devices": devices.num_rows,
        "device_kind": devices["kind"][0].as_py(),
        "real": devices["real"][0].as_py(),
        **_outcomes(requests),
        **{name: _spread(_floats(completed, name)) for name in LATENCIES},
        "output_tokens": num_tokens,
        "bytes_per_token_up": _ratio(_total(requests, "payload_bytes_up"), num_tokens),
        "bytes_per_token_down": _ratio(_total(requests, "payload_bytes_down"), num_tokens),
        "energy_j": _sum_or_none(devices, "energy_j"),
        "breakdown_s": breakdown(completed),
        "quality": quality(requests),
    }


def _memory(footprint: Footprint) -> dict[str, Any]:
    """What a split takes for the group's longest request, in whole bytes."""
    return {
        "split": footprint.split,
        "tokens": footprint.tokens,
        "footprint_bytes": math.ceil(footprint.footprint_bits / BITS_PER_BYTE),
        "state_bytes": math.ceil(footprint.state_bits / BITS_PER_BYTE),
        "edge_bytes": footprint.edge_bytes,
    }


def _sum_by_kind(table: pa.Table, column: str) -> dict[str, float | None]:
    kinds = sorted(table["kind"].unique().to_pylist())
    return {kind: _sum_or_none(_equal(table, "kind", kind), column) for kind in kinds}


def _sum_or_none(table: pa.Table, column: str) -> float | None:
    """None where no row has a value, so that a lost account isn't read as nothing used."""
    values = _floats(table, column)
    return math.fsum(values.tolist()) if values.size else None


def _spread(values: FloatArray) -> dict[str, float] | None:
    """Mean and percentiles, these by linear interpolation between the order statistics; None without values."""
    if values.size == 0:
        return None
    cuts = np.percentile(values, PERCENTILES)
    named: Mapping[str, float] = {f"p{cut}": float(value) for cut, value in zip(PERCENTILES, cuts, strict=True)}
    return {"mean": math.fsum(values.tolist()) / values.size, **named}


def _ratio(part: float | None, whole: float) -> float | None:
    return None if part is None or whole == 0 else part / whole


def _equal(table: pa.Table, column: str, value: str) -> pa.Table:
    chosen = pc.equal(table[column], value)
    return table if pc.all(chosen).as_py() else table.filter(chosen)  # large where all are chosen: not a second time


def _with_outcome(requests: pa.Table, outcome: Outcome) -> pa.Table:
    return _equal(requests, "outcome", str(outcome))


def _total(table: pa.Table, column: str) -> int:
    """Exact sum of an integer column, nulls left out."""
    return int(pc.sum(table[column]).as_py() or 0)


def _floats(table: pa.Table, column: str) -> FloatArray:
    values: FloatArray = table[column].drop_null().to_numpy()
    return values


def _ints(table: pa.Table, column: str) -> IntArray:
    values: IntArray = table[column].to_numpy()
    return values
