"""TS, threshold splitting [name, order and purpose published; the rest our design]: what is too large for a step.

Values with |x| >= tau, and every NaN and infinity, travel bit for bit beside the quantised rest: a count for each row
in ceil(log2(d + 1)) bits, columns in ceil(log2 d) bits, and the values, as bfloat16 where all of them are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from testbed.codecs.compiling import kernels, torch_kernels
from testbed.codecs.framing import CodecError, F32Array, U8Array, U32Array
from testbed.codecs.reference import MAGNITUDE
from testbed.codecs.stages import INFINITY_BITS

_LOWER_HALF = np.uint32(0xFFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """An absolute tau, or a quantile of the message's own magnitudes, or so many values a row on average."""

    tau: float | None = None
    quantile: float | None = None
    per_row: float | None = None

    @property
    def is_absolute(self) -> bool:
        return self.tau is not None

    def of(self, hidden_ND: F32Array) -> np.float32:
        """The threshold for these hidden states; infinite where nothing finite should be split off."""
        if self.tau is not None:
            return np.float32(self.tau)
        return calibrated_tau(hidden_ND, self._quantile(hidden_ND.shape[1]))

    def expected_share(self, hidden_size: int) -> float:
        """Share of values split off, where the rule says so; 0 for an absolute tau, which can't know."""
        return 0.0 if self.tau is not None else 1.0 - self._quantile(hidden_size)

    def _quantile(self, hidden_size: int) -> float:
        if self.quantile is not None:
            return self.quantile
        assert self.per_row is not None, "one of three is given"
        return max(0.0, 1.0 - self.per_row / max(1, hidden_size))


def calibrated_tau(samples_ND: F32Array, quantile: float) -> np.float32:
    """The threshold that this share of the finite magnitudes lies below; infinite where that is all of them."""
    found_bits = kernels().ranked_magnitude(np.ascontiguousarray(samples_ND, np.float32).view(np.uint32), quantile)
    return np.float32(np.uint32(found_bits).view(np.float32))


def bits_of(tau: np.float32) -> int:
    return int(tau.view(np.uint32)) & int(MAGNITUDE)


def sparse_section(seen_ND: F32Array, tau_bits: int, hidden_ND: F32Array) -> tuple[list[U8Array], bool]:
    """(sections, whether values are halves) of hidden states of which some, as the threshold sees them, are above."""
    counts_N, columns_M, values_M = _gathered(seen_ND, tau_bits, hidden_ND)
    hidden_size = hidden_ND.shape[1]
    is_half = not np.bitwise_or.reduce(values_M) & _LOWER_HALF
    wire = (values_M >> np.uint32(16)).astype("<u2") if is_half else values_M.astype("<u4", copy=False)
    counts = kernels().pack_bits(counts_N, hidden_size.bit_length())
    columns = kernels().pack_bits(columns_M, (hidden_size - 1).bit_length())
    return [counts, columns, wire.view(np.uint8)], is_half


def _gathered(seen_ND: F32Array, tau_bits: int, hidden_ND: F32Array) -> tuple[U32Array, U32Array, U32Array]:
    if not isinstance(seen_ND, np.ndarray):
        found: tuple[U32Array, U32Array, U32Array] = torch_kernels().gather(seen_ND, tau_bits, hidden_ND)
        return found
    counts_N, columns_M, values_M = kernels().gather(seen_ND.view(np.uint32), tau_bits)
    if seen_ND is not hidden_ND:
        values_M = hidden_ND.view(np.uint32)[np.repeat(np.arange(counts_N.size), counts_N), columns_M]
    return counts_N, columns_M, values_M


class Sparse(NamedTuple):
    """Sparse values from the wire; `size_bytes` is what they took."""

    counts: U32Array
    columns: U32Array
    values: U32Array
    tau_bits: int
    size_bytes: int

    def put(self, hidden_ND: F32Array, tau_bits: int) -> None:
        if not kernels().scatter(hidden_ND.view(np.uint32), self.counts, self.columns, self.values, tau_bits):
            raise CodecError("sparse columns don't rise, or lie beyond the row, or a value is below the threshold")


def read_sparse(body: U8Array, num_tokens: int, hidden_size: int, *, is_half: bool, tau: float) -> Sparse:
    """The sparse section that a body begins with."""
    count_width, column_width, value_bytes = (
        hidden_size.bit_length(),
        (hidden_size - 1).bit_length(),
        2 if is_half else 4,
    )
    counts_end = (num_tokens * count_width + 7) // 8
    if not hidden_size or body.size < counts_end:
        raise CodecError("the sparse counts end early")
    counts_N = kernels().unpack_bits(body[:counts_end], count_width, num_tokens)
    total = int(np.add.reduce(counts_N, dtype=np.int64))
    columns_end = counts_end + (total * column_width + 7) // 8
    size = columns_end + total * value_bytes
    if not total or body.size < size:
        raise CodecError(f"{total} sparse values don't fit into the message")
    columns_M = kernels().unpack_bits(body[counts_end:columns_end], column_width, total)
    wire = np.frombuffer(body[columns_end:size], "<u2" if is_half else "<u4").astype(np.uint32)
    values_M = wire << np.uint32(16) if is_half else wire
    return Sparse(counts_N, columns_M, values_M, bits_of(np.float32(tau)), size)


def sparse_nbytes(num_tokens: int, hidden_size: int, num_values: int) -> int:
    """Bytes of so many sparse values in float32; nothing for none."""
    if not num_values:
        return 0
    counts, columns = num_tokens * hidden_size.bit_length(), num_values * (hidden_size - 1).bit_length()
    return (counts + 7) // 8 + (columns + 7) // 8 + 4 * num_values


__all__ = ["INFINITY_BITS", "Sparse", "Threshold", "calibrated_tau", "read_sparse", "sparse_nbytes", "sparse_section"]
