"""Turns the rows of one iteration into what the KV store and the ragged attention need: places, groups and masks.

Shapes: R rows of a group, n new tokens a row, T longest history a group reads, N new tokens of all rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from testbed.models.kv_store import KVStore, Step
from testbed.models.ragged import AbreastBatch, Group, RaggedBatch, Read, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One session's part of an iteration: ``data`` is ids [n] or hidden states [n, d], after ``past`` tokens."""

    session: int
    past: int
    data: torch.Tensor

    @property
    def new(self) -> int:
        """n, the new tokens."""
        return int(self.data.shape[0])

    @property
    def total(self) -> int:
        """Tokens of the session after this iteration."""
        return self.past + self.new

    def first_seen(self, window: Window) -> int:
        """The earliest position that the first new token attends to."""
        return 0 if window is None else max(self.past - window + 1, 0)


def lone_step(row: Row, store: KVStore) -> Step:
    """The step of a sequence that runs alone; it reads exactly what the library's own cache would hold."""
    return Step(
        writes=_writes([row], store),
        lone_reads={
            window: store.to_device(store.span(row.session, window, row.first_seen(window), row.total))
            for window in store.windows
        },
        past=row.past,
    )


def plan_abreast(rows: Sequence[Row], store: KVStore) -> tuple[Step, AbreastBatch]:
    """The step of decode steps that run packed, each with the history that it would read alone (no windows)."""
    places = np.concatenate([store.span(row.session, None, 0, row.total) for row in rows])
    lengths = tuple(row.total for row in rows)
    batch = AbreastBatch(places=store.to_device(places), lengths=lengths, store=store)
    return Step(writes=_writes(rows, store), lone_reads=None, past=0), batch


def plan_batch(rows: Sequence[Row], store: KVStore, *, mask_dtype: torch.dtype | None) -> tuple[Step, RaggedBatch]:
    """The step and groups of rows that run packed one after another.

    ``mask_dtype``: None for boolean masks that may be left out where causality alone decides (sdpa), else the dtype of
    additive masks that are always written out (eager).
    """
    offsets = np.cumsum([0, *(row.new for row in rows)])
    by_new: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        by_new[row.new].append(index)
    groups = []
    for new, members in by_new.items():
        chosen = [rows[index] for index in members]
        tokens = (offsets[members][:, None] + np.arange(new)).ravel()
        reads = {window: _read(chosen, window, store, mask_dtype) for window in store.windows}
        groups.append(Group(num_rows=len(chosen), tokens=store.to_device(tokens), reads=reads))
    step = Step(writes=_writes(rows, store), lone_reads=None, past=0)
    return step, RaggedBatch(groups=tuple(groups), store=store)


def _writes(rows: Sequence[Row], store: KVStore) -> dict[Window, torch.Tensor]:
    return {
        window: store.to_device(np.concatenate([store.span(row.session, window, row.past, row.total) for row in rows]))
        for window in store.windows
    }


def _read(rows: Sequence[Row], window: Window, store: KVStore, mask_dtype: torch.dtype | None) -> Read:
    """Histories side by side, each from the first position its first new token sees, padded with the zero place."""
    first = np.array([row.first_seen(window) for row in rows])
    lengths = np.array([row.total for row in rows]) - first
    places = np.zeros((len(rows), int(lengths.max())), dtype=np.int64)
    for index, row in enumerate(rows):
        places[index, : lengths[index]] = store.span(row.session, window, int(first[index]), row.total)
    mask = None if _needs_no_mask(rows, lengths, window, mask_dtype) else _mask(rows, first, places.shape[1], window)
    if mask is not None and mask_dtype is not None:
        mask = torch.zeros(mask.shape, dtype=mask_dtype).masked_fill(~mask, torch.finfo(mask_dtype).min)
    return Read(places=store.to_device(places.ravel()), mask=None if mask is None else store.move(mask))


def _needs_no_mask(rows: Sequence[Row], lengths: np.ndarray, window: Window, mask_dtype: torch.dtype | None) -> bool:
    """Equally long decode steps see all they read; fresh prompts are plainly causal, which sdpa knows by itself."""
    new = rows[0].new
    if new == 1:
        return bool((lengths == lengths[0]).all())
    fresh = all(row.past == 0 for row in rows)
    return mask_dtype is None and fresh and (window is None or new <= window)


def _mask(rows: Sequence[Row], first: np.ndarray, width: int, window: Window) -> torch.Tensor:
    """[R, 1, n, T], true where a query position may see a key position."""
    query_Rn1 = np.array([row.past for row in rows])[:, None, None] + np.arange(rows[0].new)[:, None]
    key_R1T = first[:, None, None] + np.arange(width)
    allowed = key_R1T <= query_Rn1
    if window is not None:
        allowed &= key_R1T > query_Rn1 - window
    return torch.from_numpy(allowed)[:, None]
