"""Every compiled kernel under one name; the same results as their namesakes in reference*.py, bit for bit."""

from __future__ import annotations

from testbed.codecs.kernel_asymmetric import asymmetric_codes, asymmetric_values
from testbed.codecs.kernel_compile import is_cached
from testbed.codecs.kernel_crc import crc32c
from testbed.codecs.kernel_decode import tabq_unpack, tabq_values
from testbed.codecs.kernel_encode import tabq_pack, tabq_symbols
from testbed.codecs.kernel_rans import rans_decode, rans_encode, rans_slots
from testbed.codecs.kernel_rotation import hadamard
from testbed.codecs.kernel_sparse import gather, pack_bits, ranked_magnitude, scatter, unpack_bits
from testbed.codecs.kernel_symbols import by_group, by_row, rans_table
from testbed.codecs.kernel_uniform import (
    fp8_codes,
    fp8_values,
    pack_rows,
    uniform_codes,
    uniform_values,
    unpack_rows,
)

__all__ = [
    "asymmetric_codes",
    "asymmetric_values",
    "by_group",
    "by_row",
    "crc32c",
    "fp8_codes",
    "fp8_values",
    "gather",
    "hadamard",
    "is_cached",
    "pack_bits",
    "pack_rows",
    "ranked_magnitude",
    "rans_decode",
    "rans_encode",
    "rans_slots",
    "rans_table",
    "scatter",
    "tabq_pack",
    "tabq_symbols",
    "tabq_unpack",
    "tabq_values",
    "uniform_codes",
    "uniform_values",
    "unpack_bits",
    "unpack_rows",
]
