"""Attention for a batch of sessions with different lengths, without padding the linear layers.

The tokens of all sessions run packed in one row [1, N, d] through every projection, norm and MLP: one real batch.
Only attention tells sessions apart. Rows that bring equally many new tokens (all decode steps; prompts of one length)
form a group; a group reads its sessions' keys and values from the shard's store, padded to the group's longest.
Cost of a step: Python work O(groups x layers + sessions); reads O(sum over groups of rows x longest history).

Shapes: N packed tokens, R rows of a group, n new tokens a row, T padded history, H heads, K KV heads, D head size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

Attention = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]
Window = int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What one group reads at layers of one window: ``places`` [R T] of the store, ``mask`` [R, 1, n, T] or None."""

    places: torch.Tensor
    mask: torch.Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """R rows with n new tokens each; ``tokens`` [R n] are their places in the packed row."""

    num_rows: int
    tokens: torch.Tensor
    reads: Mapping[Window, Read]


class KeyValueReader(Protocol):
    """The shard's store as attention sees it."""

    def window(self, layer: int) -> Window:
        """The layer's sliding window, None for full attention."""
        ...

    def read(self, layer: int, places: torch.Tensor, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values at ``places`` [R T], each [R, K, T, D]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RaggedBatch:
    """One iteration's groups and the store they read; passed down to every attention layer."""

    groups: tuple[Group, ...]
    store: KeyValueReader


@dataclass(frozen=True, slots=True, kw_only=True)
class AbreastBatch:
    """Decode steps of sequences that each run as if alone.

    ``places`` [sum of T] are those of all rows, one row's behind the other's; row i reads ``lengths[i]`` of them.
    """

    places: torch.Tensor
    lengths: tuple[int, ...]
    store: KeyValueReader


def register(implementation: str) -> str:
    """Makes ``sdpa`` or ``eager`` attention able to run ragged batches; returns the name to build a model with.

    Without a ragged batch the registered function is the library's own, so single sequences are bit-identical.
    """
    bases: dict[str, Attention] = {"sdpa": _sdpa, "eager": _eager}
    masks: dict[str, Callable[..., Any]] = {"sdpa": sdpa_mask, "eager": eager_mask}
    name = f"testbed_{implementation}"
    AttentionInterface.register(name, _ragged(bases[implementation]))
    AttentionMaskInterface.register(name, masks[implementation])
    return name


def _ragged(base: Attention) -> Any:
    def attention(
        module: nn.Module,
        query: torch.Tensor,
        *rest: torch.Tensor | None,
        ragged: RaggedBatch | AbreastBatch | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if ragged is None:
            return base(module, query, *rest, **kwargs)
        if isinstance(ragged, AbreastBatch):
            return _attend_abreast(base, module, query, ragged, kwargs), None
        return _attend(base, module, query, ragged, kwargs), None

    return attention


def _attend(
    base: Attention, module: nn.Module, query_1HND: torch.Tensor, batch: RaggedBatch, kwargs: dict[str, Any]
) -> torch.Tensor:
    """Runs ``base`` group by group; returns the packed output [1, N, H, D]."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    window = batch.store.window(layer)
    query_NHD = query_1HND[0].transpose(0, 1)
    output_NHD = torch.empty_like(query_NHD, memory_format=torch.contiguous_format)
    for group in batch.groups:
        read = group.reads[window]
        keys, values = batch.store.read(layer, read.places, group.num_rows)
        rows_RnHD = query_NHD[group.tokens].view(group.num_rows, -1, *query_NHD.shape[1:])
        result_RnHD, _ = base(module, rows_RnHD.transpose(1, 2), keys, values, read.mask, **kwargs)
        output_NHD[group.tokens] = result_RnHD.flatten(0, 1)
    return output_NHD[None]


def _attend_abreast(
    base: Attention, module: nn.Module, query_1HND: torch.Tensor, batch: AbreastBatch, kwargs: dict[str, Any]
) -> torch.Tensor:
    """Runs ``base`` for each row with its own history, as a lone step does; returns the packed output [1, N, H, D]."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    keys, values = (torch.split(states, list(batch.lengths), 2) for states in batch.store.read(layer, batch.places, 1))
    queries = torch.split(query_1HND, 1, 2)
    rows = zip(queries, keys, values, strict=True)
    return torch.cat([base(module, query, key, value, None, **kwargs)[0] for query, key, value in rows], 1)


def _sdpa(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    return sdpa_attention_forward(*args, **kwargs)


def _eager(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The eager attention of the module's own modeling file (families differ, e.g. in soft-capping)."""
    own: Attention = sys.modules[type(module).__module__].eager_attention_forward
    return own(module, *args, **kwargs)
