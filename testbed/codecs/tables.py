"""Frequency tables that a session agrees on, in place of those that every message would carry [our design].

One table for each alphabet of a stage (TAB-Q: each width), or several: then channels whose symbols are alike form
groups, and every group has its own table. All symbols have a frequency, so any message can be coded.

Legend: K alphabets, G groups, C symbols of a row, S = 256 symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.codecs.framing import F32Array, U8Array
from testbed.codecs.reference import RANS_BITS, U16Array
from testbed.codecs.stages import Stage

F64Array = npt.NDArray[np.float64]
NUM_GROUPS = 16
_SYMBOLS, _TOTAL = 256, 1 << RANS_BITS
_ROUNDS = 20  # of regrouping, at most
_FORCED_ROWS = 16.0  # what rows that were coded in an alphabet only for the count weigh together, in rows
_COMMON_ROWS = 2.0  # what all channels together weigh in a group's table, in rows of the group


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tables:
    """`frequencies` [K, G, S] sum to 4096 over the symbols; `groups` [K, C] say which a channel's symbols have."""

    keys: tuple[int, ...]
    frequencies: U16Array
    groups: U8Array

    def to_bytes(self) -> bytes:
        """One text for equal tables, and only for them."""
        sizes = np.array([*self.frequencies.shape, *self.groups.shape, *self.keys], "<u4")
        return sizes.tobytes() + self.frequencies.astype("<u2").tobytes() + self.groups.tobytes()


def counted_tables(stage: Stage, seen_ND: F32Array, tau_bits: int, num_groups: int) -> Tables:
    """Tables for the symbols that a stage makes of sample rows.

    An alphabet that few rows choose, or none, is counted on all rows as if they had to choose it as well.
    """
    columns = stage.streams(seen_ND[:1], tau_bits).blocks.columns
    chosen = _counts(stage, seen_ND, tau_bits, columns)
    num_groups = max(1, min(num_groups, columns))
    frequencies = np.empty((len(stage.keys), num_groups, _SYMBOLS), np.uint16)
    groups = np.zeros((len(stage.keys), columns), np.uint8)
    for place, key in enumerate(stage.keys):
        forced_CS = _counts(stage.only(key), seen_ND, tau_bits, columns)[key]
        num_forced = max(1.0, forced_CS.sum() / max(1, columns))
        counts_CS = chosen[key] + forced_CS * (_FORCED_ROWS / num_forced)
        groups[place] = grouped(counts_CS, num_groups)
        frequencies[place] = _group_tables(counts_CS, groups[place], num_groups, stage.alphabet(key))
    return Tables(keys=tuple(stage.keys), frequencies=frequencies, groups=groups)


def _counts(stage: Stage, seen_ND: F32Array, tau_bits: int, columns: int) -> dict[int, F64Array]:
    """How often each symbol [C, S] occurs in the rows of each alphabet."""
    _, symbols, blocks, _, _, _ = stage.streams(seen_ND, tau_bits)
    counts = {key: np.zeros((columns, _SYMBOLS)) for key in stage.keys}
    stop = 0
    for key, count in zip(blocks.keys, blocks.counts(), strict=True):
        start, stop = stop, stop + count
        places = np.arange(count) % columns * _SYMBOLS + symbols[start:stop] if count else np.empty(0, np.int64)
        counts[key] += np.bincount(places, minlength=columns * _SYMBOLS).reshape(columns, _SYMBOLS)
    return counts


def grouped(counts_CS: F64Array, num_groups: int) -> U8Array:
    """Each channel's group [C], such that the groups' own tables code the counted symbols in few bits.

    Channels begin in order of their symbols' spread, and move to the group whose table codes them shortest until none
    wants to: Lloyd's algorithm with code length for distance.
    """
    num_columns = len(counts_CS)
    totals_C, values_S = np.maximum(counts_CS.sum(axis=1), 1e-9), np.arange(_SYMBOLS)
    mean_C = counts_CS @ values_S / totals_C
    spread_C = counts_CS @ values_S**2 / totals_C - mean_C**2
    groups_C = np.empty(num_columns, np.intp)
    groups_C[np.argsort(spread_C, kind="stable")] = np.arange(num_columns) * num_groups // max(1, num_columns)
    for _ in range(_ROUNDS if num_groups > 1 else 0):
        lengths_GS = -np.log2(_shares(counts_CS, groups_C, num_groups))
        nearest_C = np.argmin(counts_CS @ lengths_GS.T, axis=1)
        if (nearest_C == groups_C).all():
            break
        groups_C = nearest_C
    return groups_C.astype(np.uint8)


def _shares(counts_CS: F64Array, groups_C: npt.NDArray[np.integer], num_groups: int) -> F64Array:
    """Probabilities [G, S], none of them 0: the group's counts, and a little of all channels'."""
    common_S = counts_CS.sum(axis=0) + 1e-6
    counts_GS = np.stack([counts_CS[groups_C == group].sum(axis=0) for group in range(num_groups)])
    mixed_GS = counts_GS + common_S * (_COMMON_ROWS / max(1.0, counts_CS.sum() / max(1, len(counts_CS))))
    shares_GS: F64Array = mixed_GS / mixed_GS.sum(axis=1, keepdims=True)
    return shares_GS


def _group_tables(counts_CS: F64Array, groups_C: U8Array, num_groups: int, alphabet: int) -> U16Array:
    shares_GS = _shares(counts_CS, groups_C, num_groups)
    return np.stack([frequencies_of(shares_S[:alphabet]) for shares_S in shares_GS])


def frequencies_of(shares_S: F64Array) -> U16Array:
    """Frequencies [256] that sum to 4096, at least 1 for each symbol of the alphabet, else in proportion."""
    low, high = 0.0, 2.0 * _TOTAL / shares_S.sum()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _scaled(shares_S, middle).sum() <= _TOTAL else (low, middle)
    frequencies = np.zeros(_SYMBOLS, np.int64)
    frequencies[: shares_S.size] = _scaled(shares_S, low)
    frequencies[int(np.argmax(frequencies))] += _TOTAL - int(frequencies.sum())
    return frequencies.astype(np.uint16)


def _scaled(shares_S: F64Array, factor: float) -> npt.NDArray[np.int64]:
    return np.maximum(1, np.floor(shares_S * factor)).astype(np.int64)
