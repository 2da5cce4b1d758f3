"""Kernels compiled by numba, or their reference where numba is not installed."""

from __future__ import annotations

import importlib
import logging
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from testbed.codecs.framing import F32Array, U8Array, U32Array
from testbed.codecs.reference import I64Array, TabqSetting, U16Array

_REFERENCES = ("reference", "reference_asymmetric", "reference_rans", "reference_rotation", "reference_uniform")
_LOG = logging.getLogger(__name__)


class Kernels(Protocol):
    """The arithmetic of all stages; docstrings are in reference*.py."""

    def crc32c(self, data: U8Array, crc: int) -> int: ...
    def gather(self, bits_ND: U32Array, tau_bits: int) -> tuple[U32Array, U32Array, U32Array]: ...
    def ranked_magnitude(self, bits_ND: U32Array, quantile: float) -> int: ...
    def scatter(
        self, bits_ND: U32Array, counts_N: U32Array, columns_M: U32Array, values_M: U32Array, tau_bits: int
    ) -> bool: ...
    def pack_bits(self, values: U32Array, width: int) -> U8Array: ...
    def unpack_bits(self, packed: U8Array, width: int, count: int) -> U32Array: ...
    def tabq_pack(
        self, hidden_ND: F32Array, tau_bits: int, setting: TabqSetting
    ) -> tuple[U8Array, F32Array, U8Array, int]: ...
    def tabq_unpack(
        self, widths_N: U8Array, scales_N: F32Array, payload: U8Array, hidden_size: int, requantised: bool = False
    ) -> F32Array: ...
    def tabq_symbols(
        self, hidden_ND: F32Array, tau_bits: int, setting: TabqSetting
    ) -> tuple[U8Array, F32Array, U8Array, U8Array, int]: ...
    def tabq_values(
        self, widths_N: U8Array, scales_N: F32Array, symbols_ND: U8Array, planes: U8Array, requantised: bool = False
    ) -> F32Array: ...
    def asymmetric_codes(
        self, hidden_ND: F32Array, tau_bits: int, setting: TabqSetting
    ) -> tuple[U8Array, F32Array, U8Array, U8Array, int]: ...
    def asymmetric_values(
        self, widths_N: U8Array, scales_N: F32Array, zeros_N: U8Array, codes_ND: U8Array, requantised: bool
    ) -> F32Array: ...
    def hadamard(self, hidden_ND: F32Array) -> F32Array: ...
    def pack_rows(self, codes_ND: U8Array, widths_N: U8Array) -> U8Array: ...
    def unpack_rows(self, packed: U8Array, widths_N: U8Array, hidden_size: int) -> U8Array: ...
    def uniform_codes(
        self, hidden_ND: F32Array, tau_bits: int, bits: int, symmetric: bool
    ) -> tuple[F32Array, U8Array, U8Array, int]: ...
    def uniform_values(
        self, scales_N: F32Array, zeros_N: U8Array, codes_ND: U8Array, bits: int, symmetric: bool
    ) -> F32Array: ...
    def fp8_codes(self, hidden_ND: F32Array, tau_bits: int) -> tuple[F32Array, U8Array, int]: ...
    def fp8_values(self, scales_N: F32Array, codes_ND: U8Array) -> F32Array: ...
    def rans_table(self, symbols: U8Array) -> U16Array: ...
    def rans_encode(
        self, symbols: U8Array, counts_S: I64Array, tables_S: I64Array, frequencies_TK: U16Array
    ) -> U8Array: ...
    def rans_slots(self, frequencies_TK: U16Array) -> U32Array: ...
    def rans_decode(
        self, stream: U8Array, counts_S: I64Array, tables_S: I64Array, slots: U32Array
    ) -> U8Array | None: ...
    def by_group(self, rows_RC: U8Array, order_C: npt.NDArray[np.intp], sizes_G: I64Array) -> U8Array: ...
    def by_row(self, flat: U8Array, order_C: npt.NDArray[np.intp], sizes_G: I64Array) -> U8Array: ...


class _Reference:
    """The kernels' stand-in, hundreds of times slower."""

    def __init__(self) -> None:
        for module in (importlib.import_module(f"testbed.codecs.{name}") for name in _REFERENCES):
            for name in vars(Kernels):
                if not name.startswith("_") and hasattr(module, name):
                    setattr(self, name, getattr(module, name))


@cache
def reference() -> Kernels:
    made: Any = _Reference()
    return made  # type: ignore[no-any-return]


@cache
def kernels() -> Kernels:
    """The compiled kernels; loading them compiles nothing, their first call does, once per machine."""
    try:
        loaded: Any = importlib.import_module("testbed.codecs.kernels")
    except ImportError:
        _LOG.warning("numba is not installed: codecs run their NumPy reference, which is hundreds of times slower")
        return reference()
    return loaded  # type: ignore[no-any-return]


@cache
def torch_kernels() -> Any:
    """The module with the kernels for tensors; importing it imports torch."""
    return importlib.import_module("testbed.codecs.torch_kernels")


def kernels_for(hidden_ND: object) -> Kernels:
    """The kernels that take this array; `tabq_pack`, `tabq_symbols`, `uniform_codes`, `pack_rows` if it's a tensor."""
    if isinstance(hidden_ND, np.ndarray):
        return kernels()
    return torch_kernels()  # type: ignore[no-any-return]


@cache
def announce(module: str) -> None:
    """Say, before a module's kernels are used for the first time on a machine, why that takes so long."""
    loaded: Any = kernels()
    if loaded is not reference() and not loaded.is_cached(module):
        _LOG.warning("compiling the codec's kernels, once on this machine: some ten seconds")
