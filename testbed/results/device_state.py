"""What became of devices by themselves: battery, heat, presence. docs/metrics.md defines every figure."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

ENERGY_STATES = ("idle_j", "background_j", "compute_j", "transmit_j", "receive_j", "sleep_j")


def energy_by_state(devices: pa.Table) -> dict[str, float]:
    """Joules of all devices together by what they did."""
    return {state: math.fsum(devices[state].drop_null().to_numpy().tolist()) for state in ENERGY_STATES}


def device_state(devices: pa.Table, end_ns: int) -> dict[str, Any] | None:
    """None where nothing changes in any device by itself."""
    changing = devices.filter(pc.is_valid(devices["off_ns"]))
    if changing.num_rows == 0:
        return None
    whole_ns = changing.num_rows * end_ns
    return {
        "devices": changing.num_rows,
        "off_share": _share(changing, "off_ns", whole_ns),
        "asleep_share": _share(changing, "asleep_ns", whole_ns),
        "departures": _sum(changing, "departures"),
        "battery": _battery(changing.filter(pc.is_valid(changing["battery_end_j"]))),
        "heat": _heat(changing.filter(pc.is_valid(changing["max_temperature_c"]))),
    }


def _battery(devices: pa.Table) -> dict[str, Any] | None:
    if devices.num_rows == 0:
        return None
    ends = zip(devices["battery_end_j"].to_pylist(), devices["battery_capacity_j"].to_pylist(), strict=True)
    levels = [max(0.0, end_j) / capacity_j for end_j, capacity_j in ends]
    return {
        "devices": devices.num_rows,
        "mean_level": math.fsum(levels) / len(levels),
        "lowest_level": min(levels),
        "charged_j": math.fsum(devices["charged_j"].to_pylist()),
        "cutoffs": _sum(devices, "cutoffs"),
        "cut_off_devices": int(pc.sum(pc.greater(devices["cutoffs"], 0)).as_py()),
    }


def _heat(devices: pa.Table) -> dict[str, Any] | None:
    if devices.num_rows == 0:
        return None
    return {
        "devices": devices.num_rows,
        "highest_c": pc.max(devices["max_temperature_c"]).as_py(),
        "throttled_share": _share(devices, "throttled_ns", _sum(devices, "busy_ns")),
        "shutdowns": _sum(devices, "shutdowns"),
    }


def _sum(table: pa.Table, column: str) -> int:
    return int(pc.sum(table[column]).as_py() or 0)


def _share(table: pa.Table, column: str, whole_ns: int) -> float | None:
    return _sum(table, column) / whole_ns if whole_ns else None
