"""The tensors behind one layer's KV cache: a row a place, plain or packed; both grow and hand rows out by place.

Shapes: K KV heads, D head size, S places, N or T places named.
"""

from __future__ import annotations

from typing import Protocol

import torch

from testbed.models.kv_format import KVFormat
from testbed.models.kv_packing import decode, encode

KeysValues = tuple[torch.Tensor, torch.Tensor]


class Rows(Protocol):
    """Keys and values by place. Places that were never written read as zero."""

    def grow(self, num_places: int) -> None:
        """Makes room for ``num_places`` places, those that are there kept."""
        ...

    def write(self, places_N: torch.Tensor, keys_KND: torch.Tensor, values_KND: torch.Tensor) -> None:
        """Puts keys and values at their places."""
        ...

    def read(self, places_T: torch.Tensor) -> KeysValues:
        """Keys and values at places, each [K, T, D]."""
        ...

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All that is stored."""
        ...

    def taken(self, places_N: torch.Tensor) -> torch.Tensor:
        """What is stored at places, [N, bytes] uint8."""
        ...

    def put(self, places_N: torch.Tensor, records_NB: torch.Tensor) -> None:
        """Stores what `taken` gave, here or in another layer's store, at places."""
        ...


class PlainRows:
    """Keys and values [K, S, D] as the model computes them."""

    def __init__(self, keys_KND: torch.Tensor, values_KND: torch.Tensor) -> None:
        self._keys, self._values = _empty(keys_KND), _empty(values_KND)

    def grow(self, num_places: int) -> None:
        self._keys, self._values = (_widened(item, num_places, 1) for item in (self._keys, self._values))

    def write(self, places_N: torch.Tensor, keys_KND: torch.Tensor, values_KND: torch.Tensor) -> None:
        self._keys.index_copy_(1, places_N, keys_KND)
        self._values.index_copy_(1, places_N, values_KND)

    def read(self, places_T: torch.Tensor) -> KeysValues:
        return self._keys.index_select(1, places_T), self._values.index_select(1, places_T)

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self._keys, self._values

    def taken(self, places_N: torch.Tensor) -> torch.Tensor:
        both = [item.index_select(1, places_N).transpose(0, 1) for item in (self._keys, self._values)]
        return _as_bytes(torch.stack(both, 1))

    def put(self, places_N: torch.Tensor, records_NB: torch.Tensor) -> None:
        num_heads, _, head_dim = self._keys.shape
        both_N2KD = records_NB.view(self._keys.dtype).view(-1, 2, num_heads, head_dim)
        self.write(places_N, both_N2KD[:, 0].transpose(0, 1), both_N2KD[:, 1].transpose(0, 1))


class PackedRows:
    """A record [bytes] and scales [2 K] a place: quantised when written, dequantised when read.

    A token's own step reads it back too, so a prompt in pieces, or again after a truncation, gives what it gave at
    once. Keys and values must have one head size.
    """

    def __init__(self, keys_KND: torch.Tensor, values_KND: torch.Tensor, fmt: KVFormat) -> None:
        num_heads, _, self._head_dim = keys_KND.shape
        assert values_KND.shape == keys_KND.shape, "keys and values of one size"
        self._format, self._dtype = fmt, keys_KND.dtype
        record = fmt.codes_bytes(num_heads, self._head_dim)
        self._records = keys_KND.new_zeros((0, record), dtype=torch.uint8)
        self._scales = keys_KND.new_zeros((0, 2 * num_heads), dtype=torch.float16)

    def grow(self, num_places: int) -> None:
        self._records, self._scales = (_widened(item, num_places, 0) for item in (self._records, self._scales))

    def write(self, places_N: torch.Tensor, keys_KND: torch.Tensor, values_KND: torch.Tensor) -> None:
        both_NHD = torch.cat([keys_KND, values_KND]).transpose(0, 1)
        records, scales = encode(both_NHD, self._format)
        self._records.index_copy_(0, places_N, records)
        self._scales.index_copy_(0, places_N, scales)

    def read(self, places_T: torch.Tensor) -> KeysValues:
        records, scales = self._records.index_select(0, places_T), self._scales.index_select(0, places_T)
        both_THD = decode(records, scales, self._head_dim, self._format).to(self._dtype)
        keys_KTD, values_KTD = both_THD.transpose(0, 1).contiguous().chunk(2)
        return keys_KTD, values_KTD

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self._records, self._scales

    def taken(self, places_N: torch.Tensor) -> torch.Tensor:
        records, scales = self._records.index_select(0, places_N), self._scales.index_select(0, places_N)
        return torch.cat([records, _as_bytes(scales)], 1)

    def put(self, places_N: torch.Tensor, records_NB: torch.Tensor) -> None:
        scales_NB = records_NB[:, self._records.shape[1] :].contiguous()
        self._records.index_copy_(0, places_N, records_NB[:, : self._records.shape[1]])
        self._scales.index_copy_(0, places_N, scales_NB.view(torch.float16))


def _as_bytes(rows: torch.Tensor) -> torch.Tensor:
    return rows.contiguous().view(rows.shape[0], -1).view(torch.uint8)


def _empty(states_KND: torch.Tensor) -> torch.Tensor:
    return states_KND.new_zeros((states_KND.shape[0], 0, states_KND.shape[2]))


def _widened(stored: torch.Tensor, places: int, axis: int) -> torch.Tensor:
    shape = list(stored.shape)
    shape[axis] = places
    wider = stored.new_zeros(shape)
    wider.narrow(axis, 0, stored.shape[axis]).copy_(stored)
    return wider
