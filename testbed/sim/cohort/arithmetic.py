"""Exact arithmetic and keyed draws for compiled code: the same numbers as testbed.core.rng and testbed.actors.costs."""

from __future__ import annotations

import numpy as np

from testbed.core.units import NS_PER_S
from testbed.sim.cohort.compiling import compiled
from testbed.sim.cohort.state import Cells, typed

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)
_ONE = np.uint64(1)
_NS_PER_S = typed(NS_PER_S)
_CELL_BITS, _CELL_MASK, _TAIL, _TAIL_FROM = 20, (1 << 20) - 1, 4096, 4095 << 20  # testbed.core.quantiles
_ALL = 1 << 32


@compiled
def ceil_ratio(one: int, other: int, divisor: int) -> int:
    """ceil(one * other / divisor), exactly, whatever the product; the result is below 2^50, the divisor below 2^61.

    The float quotient is off by little, and what it leaves of the integer product says by how much: that is small
    again, so it is right though both products wrapped around.
    """
    quotient: int = np.int64(float(one) * other / divisor)  # type: ignore[assignment]  # an int of 64 bits
    rest = one * other - quotient * divisor
    while rest < 0:
        quotient -= 1
        rest += divisor
    while rest >= divisor:
        quotient += 1
        rest -= divisor
    return quotient + 1 if rest > 0 else quotient


@compiled
def ceil_ns(amount: int, rate: int) -> int:
    """What so many of something take at so many a second."""
    return ceil_ratio(amount, _NS_PER_S, rate)


@compiled
def mix64(value: np.uint64) -> np.uint64:
    value = (value ^ (value >> _S30)) * _M1
    value = (value ^ (value >> _S27)) * _M2
    return value ^ (value >> _S31)


@compiled
def draws_key(stream: int, entity: int) -> np.uint64:
    """One entity's draws of a stream; both are 64 bits, whatever their sign."""
    return mix64(np.uint64(stream) + (np.uint64(entity) + _ONE) * _GOLDEN)


@compiled
def draw_u32(key: np.uint64, counter: int) -> int:
    """The upper half of the draw of this counter."""
    upper: int = np.int64(mix64(key + (np.uint64(counter) + _ONE) * _GOLDEN) >> _S32)  # type: ignore[assignment]
    return upper


@compiled
def quantile(fixed: Cells, table: int, u32: int) -> int:
    """`QuantileTable.value` of a 32-bit draw: from the table's cells, and behind them the edges of its tail."""
    if u32 >= _TAIL_FROM:
        above = _ALL - u32
        shift = 0
        while above >> shift >= 32:  # noqa: PLR2004 - five leading bits choose the edge
            shift += 1
        edge, rest = table + _TAIL + (shift << 4) + (above >> shift), above & ((1 << shift) - 1)
        low = fixed[edge + 1]
        return low + (((fixed[edge] - low) * ((1 << shift) - rest)) >> shift)
    cell = table + (u32 >> _CELL_BITS)
    low = fixed[cell]
    return low + (((fixed[cell + 1] - low) * (u32 & _CELL_MASK)) >> _CELL_BITS)
