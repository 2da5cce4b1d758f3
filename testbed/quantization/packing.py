"""Codes of 2 to 8 bits packed without gaps: eight rows at a time, column by column.

Eight codes of Q bits are Q bytes. The eight come from eight consecutive rows of one column, so that a byte of the
packed tensor is the same place of every column and every step below runs over whole contiguous rows.

Shapes: R rows, C columns, B = ceil(R / 8) bundles, Q bits.
"""

from __future__ import annotations

import torch

from testbed.quantization.formats import ROWS_PER_BUNDLE


def pack(codes_RC: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 codes below 2^Q as [B, Q, C] uint8; rows missing from the last bundle are zero."""
    rows, columns = codes_RC.shape
    bundles = -(-rows // ROWS_PER_BUNDLE)
    padded = codes_RC.new_zeros((bundles * ROWS_PER_BUNDLE, columns))
    padded[:rows] = codes_RC
    codes_B8C = padded.view(bundles, ROWS_PER_BUNDLE, columns)
    packed_BQC = codes_RC.new_zeros((bundles, bits, columns))
    for place in range(ROWS_PER_BUNDLE):
        byte, shift = divmod(place * bits, 8)
        packed_BQC[:, byte] |= codes_B8C[:, place] << shift  # bits beyond the byte fall off
        if shift + bits > 8:  # noqa: PLR2004 - bits of a byte
            packed_BQC[:, byte + 1] |= codes_B8C[:, place] >> (8 - shift)
    return packed_BQC


def unpack(packed_BQC: torch.Tensor, rows: int) -> torch.Tensor:
    """The first `rows` rows of codes, [R, C] uint8."""
    bundles, bits, columns = packed_BQC.shape
    codes_B8C = packed_BQC.new_empty((bundles, ROWS_PER_BUNDLE, columns))
    mask = (1 << bits) - 1
    for place in range(ROWS_PER_BUNDLE):
        byte, shift = divmod(place * bits, 8)
        codes = packed_BQC[:, byte] >> shift
        if shift + bits > 8:  # noqa: PLR2004 - bits of a byte
            codes |= packed_BQC[:, byte + 1] << (8 - shift)
        codes_B8C[:, place] = codes & mask
    return codes_B8C.view(bundles * ROWS_PER_BUNDLE, columns)[:rows]
