"""A profile table fitted to the times of whole passes, by least squares with weights of no negative sign.

A pass takes, by the law of testbed/actors/table_costs.py, a sum of the table's entries with known factors: overhead,
for each layer its line and its attention at the places of this batch, and the head's line. Written in *steps* from
entry to entry, which are not negative since times never fall along an axis, that is a linear system for non-negative
least squares (Lawson and Hanson 1974). Each row is divided by its time, so relative errors count.

Two pairs of numbers can't be told apart and are settled: the head of one sequence is part of the overhead, and the
attention of one step at the shortest context part of the layer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from testbed.core.work import Work

F64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The entries of a table: of `layer` by tokens, of a prefill's attention, of steps' attention, of the head."""

    tokens: tuple[int, ...]
    prefill_tokens: tuple[int, ...]
    steps: tuple[int, ...]
    contexts: tuple[int, ...]
    rows: tuple[int, ...]  # of the head; empty where no pass has one


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One pass that was timed: what each sequence brought, all with the same layers."""

    part: str  # what it is an example of
    works: tuple[Work, ...]
    time_ns: int  # median of repeats, what the codec's law explains taken off
    spread: float = 0.0  # interquartile range of the repeats over their median

    @property
    def num_layers(self) -> int:
        return self.works[0].stop - self.works[0].start


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """A table's times, in ns: as testbed/actors/profile_table.py has them."""

    overhead_ns: int
    layer_ns: list[int]
    prefill_ns: list[int]
    decode_ns: list[list[int]]
    head_ns: list[int]


def fit_entries(passes: Sequence[Pass], axes: Axes) -> Entries:
    """The entries that explain the passes best."""
    rows = np.array([_factors(item, axes) / item.time_ns for item in passes])
    steps, _ = nnls(rows, np.ones(len(passes)))
    overhead, *blocks = _parts(steps, axes)
    layer, prefill, decode, head = blocks
    grid = np.cumsum(np.cumsum(decode.reshape(len(axes.steps), len(axes.contexts)), axis=0), axis=1)
    return Entries(
        overhead_ns=round(float(overhead[0])),
        layer_ns=_whole(np.cumsum(layer)),
        prefill_ns=_whole(np.cumsum(prefill)),
        decode_ns=[_whole(row) for row in grid],
        head_ns=_whole(np.cumsum(head)),
    )


def _parts(steps: F64Array, axes: Axes) -> list[F64Array]:
    sizes = [1, len(axes.tokens), len(axes.prefill_tokens), len(axes.steps) * len(axes.contexts), len(axes.rows)]
    return np.split(steps, np.cumsum(sizes)[:-1])


def _factors(item: Pass, axes: Axes) -> F64Array:
    """How often each step of the table is in the pass."""
    works = item.works
    prefills = [work for work in works if work.new_tokens > 1]
    decodes = [work for work in works if work.new_tokens == 1]
    layer = place_on(axes.tokens, sum(work.new_tokens for work in works))
    prefill = np.zeros(len(axes.prefill_tokens))
    for work in prefills:
        prefill += place_on(axes.prefill_tokens, work.new_tokens)
    decode = np.zeros((len(axes.steps), len(axes.contexts)))
    if decodes:
        context = -(-sum(work.past_tokens for work in decodes) // len(decodes))
        decode = np.outer(place_on(axes.steps, len(decodes)), place_on(axes.contexts, context))
        decode[0, 0] = 0.0
    head = place_on(axes.rows, len(works)) if axes.rows else np.zeros(0)
    head[:1] = 0.0
    return np.concatenate(([1.0], item.num_layers * np.concatenate((layer, prefill, decode.ravel())), head))


def place_on(axis: Sequence[int], place: int) -> F64Array:
    """The share of each step that a place on an axis has behind it: linear between entries, all of the first."""
    shares = np.zeros(len(axis))
    right = min(bisect_left(axis, place), len(axis) - 1)
    shares[: right + 1] = 1.0
    if right > 0 and place < axis[right]:
        shares[right] = (place - axis[right - 1]) / (axis[right] - axis[right - 1])
    return shares


def _whole(values: F64Array) -> list[int]:
    return [round(float(value)) for value in values]


def fit_line(amounts: Sequence[float], times_ns: Sequence[float]) -> tuple[float, float]:
    """(time of none, time of one more) by the same least squares, relative errors: neither is negative."""
    times = np.array(times_ns)
    rows = np.stack([1.0 / times, np.array(amounts) / times], axis=1)
    (start, slope), _ = nnls(rows, np.ones(len(times)))
    return float(start), float(slope)
