"""Every compiled kernel under one name; the same results as reference.py and reference_rans.py, bit for bit."""

from __future__ import annotations

from testbed.codecs.kernel_compile import is_cached
from testbed.codecs.kernel_crc import crc32c
from testbed.codecs.kernel_decode import tabq_unpack, tabq_values
from testbed.codecs.kernel_encode import tabq_pack, tabq_symbols
from testbed.codecs.kernel_rans import rans_decode, rans_encode, rans_slots, rans_table
from testbed.codecs.kernel_sparse import gather, pack_bits, scatter, unpack_bits

__all__ = [
    "crc32c",
    "gather",
    "is_cached",
    "pack_bits",
    "rans_decode",
    "rans_encode",
    "rans_slots",
    "rans_table",
    "scatter",
    "tabq_pack",
    "tabq_symbols",
    "tabq_unpack",
    "tabq_values",
    "unpack_bits",
]
