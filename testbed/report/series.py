"""Load and traffic over time, in equal slices of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from testbed.core.units import NS_PER_S

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
