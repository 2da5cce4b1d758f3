"""The servers together: when they changed, how many there were, and what they cost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from testbed.core.cast import Cast
from testbed.core.events import ServerChanged, ServersScaled
from testbed.core.units import NS_PER_S
from testbed.results import files
from testbed.results.stream import write_table

_TOKENS_PRICED = 1000


class ClusterRecorder:
    """Rows of two tables, which are written only where servers are scaled or can fail."""

    def __init__(self, cast: Cast) -> None:
        self._groups = [entry.group for entry in cast.servers]
        self._states: list[tuple[int, int, str, str]] = []
        self._orders: list[tuple[int, str, int, int, str]] = []

    def changed(self, event: ServerChanged) -> None:
        self._states.append((event.time_ns, event.server, self._groups[event.server], event.state))

    def scaled(self, event: ServersScaled) -> None:
        self._orders.append((event.time_ns, event.group, event.num_before, event.num_after, event.why))

    def close(self, folder: Path) -> None:
        if self._states:
            write_table(_table(self._states, files.SERVER_STATE_SCHEMA), folder / files.SERVER_STATES)
            write_table(_table(self._orders, files.SCALE_EVENT_SCHEMA), folder / files.SCALE_EVENTS)


def _table(rows: list[Any], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)


def costs(totals: pa.Table, requests: pa.Table, num_completed: int) -> dict[str, Any]:
    """In US dollars; None where a server that took time has no price, or there is nothing to divide by."""
    by_group = {group: _cost(totals, group) for group in dict.fromkeys(totals["group"].to_pylist())}
    known = [cost for cost in by_group.values() if cost is not None]
    total = math.fsum(known) if known and len(known) == len(by_group) else None
    num_tokens = pc.sum(requests["output_tokens"]).as_py() or 0
    return {
        "total_usd": total,
        "per_1000_output_tokens_usd": None if not num_tokens or total is None else total * _TOKENS_PRICED / num_tokens,
        "per_request_usd": None if not num_completed or total is None else total / num_completed,
        "by_group_usd": by_group,
    }


def _cost(totals: pa.Table, group: str) -> float | None:
    own = totals.filter(pc.equal(totals["group"], group))["cost_usd"]
    return None if own.null_count else math.fsum(own.to_pylist())


def operation(totals: pa.Table, states: pa.Table | None, orders: pa.Table | None, end_ns: int) -> dict[str, Any] | None:
    """How many servers there were, and how they failed; None where servers are never scaled and can't fail."""
    if states is None or orders is None:
        return None
    serving_ns = sum(_total(totals, name) for name in ("up_ns", "draining_ns"))
    down_ns = _total(totals, "down_ns")
    groups = dict.fromkeys(states["group"].to_pylist())
    return {
        "failures": _total(totals, "failures"),
        "availability": serving_ns / (serving_ns + down_ns) if serving_ns + down_ns else None,
        "server_hours": (serving_ns + _total(totals, "starting_ns")) / NS_PER_S / 3600,
        "scale_events": orders.num_rows,
        "by_group": {group: _numbers(states.filter(pc.equal(states["group"], group)), end_ns) for group in groups},
    }


def _numbers(states: pa.Table, end_ns: int) -> dict[str, Any]:
    """Servers that were up, in the mean over time, at least and at most."""
    times_ns, counts = num_in(states, ("up",))
    spans_ns = np.diff(np.append(times_ns, end_ns))
    lasting = counts[spans_ns > 0] if end_ns else counts
    return {
        "mean": float((counts * spans_ns).sum() / end_ns) if end_ns else None,
        "min": int(lasting.min()),
        "max": int(lasting.max()),
    }


def num_in(states: pa.Table, wanted: tuple[str, ...]) -> tuple[Any, Any]:
    """Steps of the number of servers in these states: the instants (each once), and the number from each one on."""
    inside: set[int] = set()
    steps: dict[int, int] = {}
    for time_ns, server, state in zip(
        states["time_ns"].to_pylist(), states["server"].to_pylist(), states["state"].to_pylist(), strict=True
    ):
        (inside.add if state in wanted else inside.discard)(server)
        steps[time_ns] = len(inside)
    return np.array(list(steps), dtype=np.int64), np.array(list(steps.values()), dtype=np.int64)


def _total(table: pa.Table, column: str) -> int:
    return int(pc.sum(table[column]).as_py() or 0)
