"""Distributions as integer tables of quantiles: a draw is a look-up, the same number on every engine and machine."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.core.rng import I64Array, U64Array

FloatArray = npt.NDArray[np.float64]

NUM_CELLS = 4095  # of equal probability 1 / 4096 each; what lies above them is the tail
NUM_EDGES = 274  # of the tail
_CELL_BITS = 20  # the top 12 of 32 bits choose the cell, the other 20 interpolate in it
_CELL_MASK = (1 << _CELL_BITS) - 1
_TAIL_FROM = NUM_CELLS << _CELL_BITS
_ONE = 1 << 32
_PARTS = 16  # of each octave of tail probability


@dataclass(frozen=True, slots=True)
class QuantileTable:
    """Any distribution in 4,095 equal cells and a finer upper tail, linear in between.

    Above 1 - 1/4096 the cells are a sixteenth of an octave of tail probability wide, down to 2**-32: edge i of `tail`
    is the quantile that is exceeded with probability ``_above(i) / 2**32``.
    """

    cells: I64Array  # [NUM_CELLS + 1], ascending
    tail: I64Array  # [NUM_EDGES], descending; the first repeats the second, the last the last but one

    @classmethod
    def from_quantile(cls, quantile: Callable[[float], float]) -> QuantileTable:
        """Tabulate an inverse distribution function given on [0, 1), rounding each quantile to an int."""
        cells = [round(quantile(index / (NUM_CELLS + 1))) for index in range(NUM_CELLS + 1)]
        edges = [round(quantile(1 - _above(index) / _ONE)) for index in range(1, NUM_EDGES - 1)]
        return cls(np.asarray(cells, np.int64), np.asarray([edges[0], *edges, edges[-1]], np.int64))

    def value(self, u32: int) -> int:
        """The quantile of a uniform 32-bit draw."""
        if u32 >= _TAIL_FROM:
            shift, edge, rest = _edge(_ONE - u32)
            low: int = self.tail.item(edge + 1)
            return low + (((self.tail.item(edge) - low) * ((1 << shift) - rest)) >> shift)
        cell = u32 >> _CELL_BITS
        low = self.cells.item(cell)
        return low + (((self.cells.item(cell + 1) - low) * (u32 & _CELL_MASK)) >> _CELL_BITS)

    def values(self, u32: U64Array) -> I64Array:
        """`value` for an array of draws."""
        cell = np.minimum(u32 >> np.uint64(_CELL_BITS), np.uint64(NUM_CELLS - 1)).astype(np.int64)
        low = self.cells[cell]
        rest = (u32 & np.uint64(_CELL_MASK)).astype(np.int64)
        found: I64Array = low + (((self.cells[cell + 1] - low) * rest) >> _CELL_BITS)
        (rare,) = np.nonzero(u32 >= np.uint64(_TAIL_FROM))
        found[rare] = [self.value(int(draw)) for draw in u32[rare]]
        return found

    def rank(self, value: int) -> int:
        """The 32-bit draw that `value` is the quantile of, about: the inverse of `value` within its rounding."""
        if value >= self.cells[-1]:
            edge = min(bisect.bisect_right(self.tail, -value, key=lambda quantile: -quantile) - 1, NUM_EDGES - 2)
            if edge < 1:
                return _ONE - 1
            shift, high, low = max(0, (edge >> 4) - 1), int(self.tail[edge]), int(self.tail[edge + 1])
            share = ((high - value) << shift) // (high - low) if high > low else 0
            return _ONE - _above(edge) - share
        cell = max(0, int(np.searchsorted(self.cells, value, side="right")) - 1)
        low, high = int(self.cells[cell]), int(self.cells[cell + 1])
        return (cell << _CELL_BITS) + max(0, ((value - low) << _CELL_BITS) // (high - low))

    @property
    def mean(self) -> float:
        """Of the piecewise uniform law that the table is."""
        return self._moment(lambda low, high: (low + high) / 2)

    @property
    def variance(self) -> float:
        mean = self.mean
        return self._moment(
            lambda low, high: ((low - mean) ** 2 + (low - mean) * (high - mean) + (high - mean) ** 2) / 3
        )

    def _moment(self, of_cell: Callable[[FloatArray, FloatArray], FloatArray], around: float = 0.0) -> float:
        cells, tail = self.cells.astype(float) - around, self.tail.astype(float) - around
        above = np.asarray([_above(edge) for edge in range(NUM_EDGES - 1)], dtype=float)
        body = of_cell(cells[:-1], cells[1:]).sum() / (NUM_CELLS + 1)
        return float(body + (of_cell(tail[1:-1], tail[:-2]) * np.diff(above)).sum() / _ONE)


def _above(edge: int) -> int:
    """Of 2**32 draws, those above an edge of the tail: 0 to 31 one by one, then 16 edges an octave."""
    return edge if edge < _PARTS else (_PARTS + edge % _PARTS) << (edge // _PARTS - 1)


def _edge(above: int) -> tuple[int, int, int]:
    """Width as a power of two of the tail's cell that holds the draw with so many above it, its edge, the rest."""
    shift = max(0, above.bit_length() - 5)
    return shift, (shift << 4) + (above >> shift), above & ((1 << shift) - 1)
