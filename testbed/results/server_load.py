"""How much servers computed, and in batches of what size, from their tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from testbed.results.folder import Table, Tables, pieces

IntArray = npt.NDArray[np.int64]


def server_load(tables: Tables, end_ns: int) -> dict[str, Any]:
    """Utilisation and batch size, of each server and of all; a server without iterations has no batch size."""
    totals = tables.server_totals
    rows, counts_SB = totals.to_pylist(), _batch_counts(tables.servers, totals.num_rows)
    each = [
        {
            "server": row["server"],
            "group": row["group"],
            "kind": row["kind"],
            "iterations": row["iterations"],
            "utilisation": _share(row["busy_ns"], _serving_ns(row, end_ns)),
            "batch_size": _batch_size(counts_SB[row["server"]]),
        }
        for row in rows
    ]
    return {
        "count": totals.num_rows,
        "iterations": tables.servers.num_rows,
        "utilisation": _share(pc.sum(totals["busy_ns"]).as_py(), sum(_serving_ns(row, end_ns) for row in rows)),
        "batch_size": _batch_size(counts_SB.sum(axis=0)),
        "each": each,
    }


def _serving_ns(row: Mapping[str, Any], end_ns: int) -> int:
    """How long a server took part: up or draining; all the time where nothing is known of it."""
    return end_ns if row["up_ns"] is None else int(row["up_ns"] + row["draining_ns"])


def _batch_counts(iterations: Table, num_servers: int) -> IntArray:
    """[servers, sizes]: how many iterations of each server had so many sequences. Reads piece by piece."""
    counts_SB = np.zeros((num_servers, 1), dtype=np.int64)
    for batch in pieces(iterations, ["server", "num_sequences"]):
        ids, sizes = (batch.column(name).to_numpy() for name in ("server", "num_sequences"))
        largest = max(counts_SB.shape[1] - 1, int(sizes.max(initial=0)))
        counts_SB = np.pad(counts_SB, ((0, 0), (0, largest + 1 - counts_SB.shape[1])))
        found = np.bincount(ids * (largest + 1) + sizes, minlength=counts_SB.size)
        counts_SB += found.reshape(counts_SB.shape)
    return counts_SB


def _batch_size(counts_B: IntArray) -> dict[str, float] | None:
    """Of so many batches of each size."""
    num_batches = int(counts_B.sum())
    if num_batches == 0:
        return None
    ends_B = np.cumsum(counts_B)
    rank, part = divmod(0.95 * (num_batches - 1), 1)
    neighbours = np.searchsorted(ends_B, [rank, min(rank + 1, num_batches - 1)], side="right")
    return {
        "mean": int(counts_B @ np.arange(counts_B.size)) / num_batches,
        "p95": float(np.interp(part, [0, 1], neighbours)),
        "max": int(np.flatnonzero(counts_B)[-1]),
    }


def _share(part: int | None, whole: int) -> float | None:
    return None if part is None or whole == 0 else part / whole
