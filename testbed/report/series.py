"""Load and traffic over time, in equal slices of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from testbed.core.units import NS_PER_S
from testbed.results.cluster import num_in

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
NUM_SLICES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes per second by slice and direction: [NUM_SLICES] each, at the time a message left its link."""

    payload: dict[str, FloatArray]
    wire: dict[str, FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One server by slice: the share of time it computed, and the mean batch and queue while it did (else NaN)."""

    busy: FloatArray
    batch: FloatArray
    waiting: FloatArray


def slice_edges_s(duration_s: float) -> FloatArray:
    """[NUM_SLICES + 1], from 0 to the end."""
    return np.linspace(0.0, duration_s, NUM_SLICES + 1)


def traffic(transfers: Iterable[pa.RecordBatch], duration_s: float) -> Traffic | None:
    """None where no message was recorded. Reads piece by piece: the table may be larger than memory."""
    shape = (2, NUM_SLICES)
    sums = {"payload_bytes": np.zeros(shape), "wire_bytes": np.zeros(shape)}
    found = False
    for batch in transfers:
        found = found or batch.num_rows > 0
        ends_s = batch.column("end_ns").to_numpy() / NS_PER_S
        slices = np.minimum((ends_s / duration_s * NUM_SLICES).astype(np.int64), NUM_SLICES - 1)
        down = (batch.column("direction").dictionary_decode().to_numpy(zero_copy_only=False) == "down").astype(int)
        for name, total in sums.items():
            np.add.at(total, (down, slices), batch.column(name).to_numpy())
    if not found:
        return None
    slice_s = duration_s / NUM_SLICES
    payload, wire = sums["payload_bytes"] / slice_s, sums["wire_bytes"] / slice_s
    return Traffic(payload={"up": payload[0], "down": payload[1]}, wire={"up": wire[0], "down": wire[1]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """The messages of one direction: when each was handed over, how long it took, and whether it came."""

    sent_s: FloatArray
    delay_s: FloatArray
    delivered: npt.NDArray[np.bool_]

    @property
    def percentiles(self) -> list[float | None]:
        """p50, p95, p99 and the longest delay of what was delivered."""
        kept = self.delay_s[self.delivered]
        return [float(np.percentile(kept, rank)) if kept.size else None for rank in (50, 95, 99, 100)]

    def by_slice(self, duration_s: float, rank: float) -> FloatArray:
        """A percentile of the delivered messages of each slice: [NUM_SLICES], NaN where there is none."""
        slices = np.minimum((self.sent_s / duration_s * NUM_SLICES).astype(np.int64), NUM_SLICES - 1)
        found = np.full(NUM_SLICES, np.nan)
        for index in range(NUM_SLICES):
            own = self.delay_s[(slices == index) & self.delivered]
            if own.size:
                found[index] = np.percentile(own, rank)
        return found


def delays(transfers: Iterable[pa.RecordBatch], duration_s: float) -> dict[str, Delays] | None:
    """By direction; None where no message was recorded."""
    columns: dict[str, list[npt.NDArray[np.generic]]] = {"sent_ns": [], "end_ns": [], "direction": [], "delivered": []}
    for batch in transfers:
        for name, parts in columns.items():
            column = batch.column(name)
            plain = column.dictionary_decode() if name == "direction" else column
            parts.append(plain.to_numpy(zero_copy_only=False))
    if not sum(part.size for part in columns["sent_ns"]) or not duration_s:
        return None
    whole = {name: np.concatenate(parts) for name, parts in columns.items()}
    found = {}
    for direction in ("up", "down"):
        own = whole["direction"] == direction
        sent_s, ended_s = whole["sent_ns"][own] / NS_PER_S, whole["end_ns"][own] / NS_PER_S
        found[direction] = Delays(
            sent_s=sent_s, delay_s=ended_s - sent_s, delivered=whole["delivered"][own].astype(bool)
        )
    return found


def load(iterations: pa.Table, server: int, duration_s: float) -> Load:
    """Of one server, whose iterations follow each other without overlap."""
    mine = iterations["server"].to_numpy() == server
    start, end = iterations["start_ns"].to_numpy()[mine] / NS_PER_S, iterations["end_ns"].to_numpy()[mine] / NS_PER_S
    edges = slice_edges_s(duration_s)
    busy = _per_slice(start, end, np.ones(start.size), edges)
    batch = _per_slice(start, end, iterations["num_sequences"].to_numpy()[mine], edges)
    waiting = _per_slice(start, end, iterations["num_waiting"].to_numpy()[mine], edges)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Load(busy=busy / np.diff(edges), batch=batch / busy, waiting=waiting / busy)


def _per_slice(start: FloatArray, end: FloatArray, level: npt.NDArray[np.number], edges: FloatArray) -> FloatArray:
    """The integral over each slice of a level that holds from start to end and is 0 between."""
    if start.size == 0:
        return np.zeros(edges.size - 1)
    area = np.cumsum((end - start) * level)
    times = np.column_stack([start, end]).ravel()
    areas = np.column_stack([np.concatenate([[0.0], area[:-1]]), area]).ravel()
    return np.diff(np.interp(edges, times, areas))


def under_way(requests: pa.Table, duration_s: float) -> FloatArray:
    """Requests that have arrived and not ended, at the edges of all slices: [NUM_SLICES + 1]."""
    edges_ns = slice_edges_s(duration_s) * NS_PER_S
    arrivals, ends = (np.sort(requests[name].drop_null().to_numpy()) for name in ("arrival_ns", "end_ns"))
    counts = np.searchsorted(arrivals, edges_ns, side="right") - np.searchsorted(ends, edges_ns, side="right")
    return counts.astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """A number that changes at instants: `count[i]` from `start_s[i]` on."""

    start_s: FloatArray
    count: IntArray


def servers(states: pa.Table, duration_s: float) -> dict[str, Steps]:
    """Servers that were up, and all that cost something; both up to the end of the run."""
    named = {"up": ("up",), "starting, up or draining": ("starting", "up", "draining")}
    found = {}
    for name, wanted in named.items():
        times_ns, counts = num_in(states, wanted)
        start_s = np.append(times_ns / NS_PER_S, duration_s)
        found[name] = Steps(start_s=start_s, count=np.append(counts, counts[-1:]))
    return found
