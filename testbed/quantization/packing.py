"""Codes of 2 to 8 bits packed without gaps: eight rows at a time, column by column.

Eight codes of Q bits are Q bytes. The eight come from eight consecutive rows of one column, so that a byte of the
packed tensor is the same place of every column and every step below runs over whole contiguous rows.

Shapes: R rows, C columns, B = ceil(R / 8) bundles, Q bits.
"""

from __future__ import annotations

import math

import torch

from testbed.quantization.formats import ROWS_PER_BUNDLE


def pack(codes_RC: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 codes below 2^Q as [B, Q, C] uint8; rows missing from the last bundle are zero."""
    rows, columns = codes_RC.shape
    bundles = -(-rows // ROWS_PER_BUNDLE)
    padded = codes_RC.new_zeros((bundles * ROWS_PER_BUNDLE, columns))
    padded[:rows] = codes_RC
    packed_BQC = codes_RC.new_zeros((bundles, bits, columns))
    codes_MPC, bytes_MSC = _parts(padded, packed_BQC)
    for place in range(codes_MPC.shape[1]):
        byte, shift = divmod(place * bits, 8)
        bytes_MSC[:, byte] |= codes_MPC[:, place] << shift  # bits beyond the byte fall off
        if shift + bits > 8:  # noqa: PLR2004 - bits of a byte
            bytes_MSC[:, byte + 1] |= codes_MPC[:, place] >> (8 - shift)
    return packed_BQC


def unpack(packed_BQC: torch.Tensor, rows: int) -> torch.Tensor:
    """The first `rows` rows of codes, [R, C] uint8."""
    bundles, bits, columns = packed_BQC.shape
    padded = packed_BQC.new_empty((bundles * ROWS_PER_BUNDLE, columns))
    codes_MPC, bytes_MSC = _parts(padded, packed_BQC)
    for place in range(codes_MPC.shape[1]):
        byte, shift = divmod(place * bits, 8)
        codes_MC = torch.bitwise_right_shift(bytes_MSC[:, byte], shift, out=codes_MPC[:, place])
        if shift + bits > 8:  # noqa: PLR2004 - bits of a byte
            codes_MC |= bytes_MSC[:, byte + 1] << (8 - shift)
        codes_MC &= (1 << bits) - 1
    return padded[:rows]


def _parts(padded: torch.Tensor, packed_BQC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [M, P, C] and their bytes [M, S, C]: bundles as the shortest parts that begin and end with a byte.

    Two 4-bit codes are a byte, four 6-bit codes are three; eight of an odd number of bits are the whole bundle.
    """
    bundles, bits, columns = packed_BQC.shape
    per_bundle = math.gcd(bits, 8)
    parts = bundles * per_bundle
    return padded.view(parts, 8 // per_bundle, columns), packed_BQC.view(parts, bits // per_bundle, columns)
