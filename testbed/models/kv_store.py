"""The KV cache of one shard: the keys and values of its own layers for all of its sessions, in one store per layer.

Shapes: K KV heads, D head size, N new tokens of all rows, R rows, T history length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from testbed.core.errors import ModelError
from testbed.models.kv_format import KVFormat
from testbed.models.kv_places import PlaceAllocator, SessionPlaces
from testbed.models.kv_rows import PackedRows, PlainRows, Rows
from testbed.models.ragged import Window


@dataclass(slots=True)
class Session:
    """One session's cache: ``length`` tokens so far, and per window where they lie."""

    length: int
    places: Mapping[Window, SessionPlaces]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The iteration in progress: where new tokens are written, and for a lone sequence what it reads and its past."""

    writes: Mapping[Window, torch.Tensor]
    lone_reads: Mapping[Window, torch.Tensor] | None
    past: int


class StoredLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, plain or packed; grows with the allocator, zeroed so that padding reads as zero."""

    def __init__(self, window: Window, fmt: KVFormat | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sliding_window = window
        self.is_sliding = window is not None
        self.step: Step | None = None
        self.num_places = 0
        self._format = fmt
        self._rows: Rows | None = None
        self._held_places = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Takes head count, head size, dtype and device from the first keys and values [1, K, N, D]."""
        keys, values = key_states[0], value_states[0]
        self._rows = PlainRows(keys, values) if self._format is None else PackedRows(keys, values, self._format)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the new keys and values [1, K, N, D]; a lone sequence gets its history [1, K, T, D] back.

        A ragged batch gets its input back: its attention reads the store group by group.
        """
        assert self.step is not None
        if self._rows is None:
            self.lazy_initialization(key_states, value_states)
        self._grow()
        self._stored().write(self.step.writes[self.sliding_window], key_states[0], value_states[0])
        if self.step.lone_reads is None:
            return key_states, value_states
        return self.read(self.step.lone_reads[self.sliding_window], 1)

    def read(self, places: torch.Tensor, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values at ``places`` [R T], each [R, K, T, D]; contiguous for one row."""
        keys_KND, values_KND = self._stored().read(places)
        return _side_by_side(keys_KND, num_rows), _side_by_side(values_KND, num_rows)

    def exported(self, places: torch.Tensor) -> torch.Tensor:
        """What is stored at places, [N, bytes] uint8."""
        return self._stored().taken(places)

    def imported(self, places: torch.Tensor, records_NB: torch.Tensor, like: torch.Tensor) -> None:
        """Stores what another store of this layer exported; ``like`` [1, K, 0, D] says what keys and values are."""
        if self._rows is None:
            self.lazy_initialization(like, like)
        self._grow()
        self._stored().put(places, records_NB)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and first position of what ``update`` returns, as the library's own dynamic layers define it."""
        past = self.get_seq_length()
        offset = 0 if self.sliding_window is None else max(past - self.sliding_window + 1, 0)
        return past - offset + query_length, offset

    def get_seq_length(self) -> int:
        """Tokens of the lone sequence before this iteration."""
        return 0 if self.step is None else self.step.past

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    def num_bytes_per_place(self) -> int:
        """Bytes of one token's key and value, as they are stored; 0 before the first token."""
        return 0 if self._rows is None or not self._held_places else self.reserved_bytes() // self._held_places

    def reserved_bytes(self) -> int:
        """Bytes of the layer's tensors."""
        return 0 if self._rows is None else sum(item.nbytes for item in self._rows.tensors())

    def _grow(self) -> None:
        if self._held_places < self.num_places:
            self._held_places = max(self.num_places, 2 * self._held_places)
            self._stored().grow(self._held_places)

    def _stored(self) -> Rows:
        assert self._rows is not None
        return self._rows


class KVStore(Cache):
    """A shard's layers of keys and values, and the sessions that own them; the library's models use it as a cache."""

    def __init__(self, windows: Iterable[Window], device: torch.device, fmt: KVFormat | None = None) -> None:
        self._layers = [StoredLayer(window, fmt) for window in windows]
        super().__init__(layers=list(self._layers))
        self._allocators = {layer.sliding_window: PlaceAllocator() for layer in self._layers}
        self._device = device
        self.sessions: dict[int, Session] = {}

    @property
    def windows(self) -> list[Window]:
        """The different sliding windows among the layers (None: full attention)."""
        return list(self._allocators)

    def window(self, layer: int) -> Window:
        """The layer's sliding window, None for full attention."""
        return self._layers[layer].sliding_window

    def read(self, layer: int, places: torch.Tensor, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer at ``places`` [R T], each [R, K, T, D]."""
        return self._layers[layer].read(places, num_rows)

    def open(self, session: int) -> None:
        """Starts an empty session."""
        self.sessions[session] = Session(0, {window: SessionPlaces() for window in self._allocators})

    def close(self, session: int) -> None:
        """Ends a session; its places are free for others."""
        self.truncate(session, 0)
        del self.sessions[session]

    def truncate(self, session: int, length: int) -> None:
        """Drops a session's tokens from position ``length`` on; ModelError where a window has left them behind."""
        state = self.sessions[session]
        if length and any(
            places.held_from > max(length - window + 1, 0) for window, places in state.places.items() if window
        ):
            raise ModelError("cannot truncate: the sliding window has already dropped what is needed", value=length)
        for window, places in state.places.items():
            self._allocators[window].release_from(places, length)
        state.length = length

    def reserve(self, session: int, tokens: int) -> None:
        """Makes room for a session of ``tokens`` tokens in all, without changing its length."""
        for window, places in self.sessions[session].places.items():
            self._allocators[window].reserve(places, tokens)

    def export(self, session: int, start: int) -> torch.Tensor:
        """What all layers hold of a session from position ``start`` on, [layers, N, bytes] uint8.

        Of tokens that a sliding window has just left behind too, as long as no session has reserved places since.
        """
        state = self.sessions[session]
        places = {
            window: self.to_device(self.span(session, window, start, state.length)) for window in self._allocators
        }
        return torch.stack([layer.exported(places[layer.sliding_window]) for layer in self._layers])

    def restore(self, session: int, records_LNB: torch.Tensor, like: torch.Tensor) -> None:
        """Begins a session with the N tokens that another store exported."""
        self.reserve(session, records_LNB.shape[1])
        self._allot()
        for layer, records_NB in zip(self._layers, records_LNB, strict=True):
            places = self.to_device(self.span(session, layer.sliding_window, 0, records_LNB.shape[1]))
            layer.imported(places, records_NB, like)
        self.sessions[session].length = records_LNB.shape[1]

    def begin(self, step: Step) -> None:
        """Points every layer at the iteration that is about to run; tensors grow when they are next written."""
        self._allot()
        for layer in self._layers:
            layer.step = step

    def _allot(self) -> None:
        for layer in self._layers:
            layer.num_places = self._allocators[layer.sliding_window].num_places

    def advance(self, session: int, length: int) -> None:
        """Commits a session's new length after an iteration; sliding layers forget what no later token can see."""
        state = self.sessions[session]
        state.length = length
        for window, places in state.places.items():
            if window is not None:
                self._allocators[window].forget_before(places, length - window + 1)

    def span(self, session: int, window: Window, start: int, stop: int) -> np.ndarray:
        """Places of a session's positions [start, stop) in layers of this window."""
        return self.sessions[session].places[window].table[start:stop]

    def to_device(self, places: np.ndarray) -> torch.Tensor:
        """Places as an index tensor on the store's device."""
        return torch.from_numpy(np.ascontiguousarray(places)).to(self._device)

    def move(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the store's device."""
        return tensor.to(self._device)

    def held_bytes(self) -> int:
        """Bytes of the keys and values that sessions hold now, counted in tokens."""
        tokens = {window: self._held_tokens(window) for window in self._allocators}
        return sum(tokens[layer.sliding_window] * layer.num_bytes_per_place() for layer in self._layers)

    def reserved_bytes(self) -> int:
        """Bytes of the store's tensors, free places and padding included."""
        return sum(layer.reserved_bytes() for layer in self._layers)

    def _held_tokens(self, window: Window) -> int:
        lengths = [session.length for session in self.sessions.values()]
        return sum(lengths) if window is None else sum(min(length, window - 1) for length in lengths)


def _side_by_side(states_KND: torch.Tensor, num_rows: int) -> torch.Tensor:
    heads, _, head_dim = states_KND.shape
    return states_KND.view(heads, num_rows, -1, head_dim).transpose(0, 1)
