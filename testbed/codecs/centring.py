"""Centring [our design]: quantise what a value differs by from its channel's mean, agreed on at the session's start."""

from __future__ import annotations

import numpy as np

from testbed.codecs.compiling import torch_kernels
from testbed.codecs.framing import CodecError, F32Array
from testbed.codecs.reference import MAGNITUDE
from testbed.codecs.sparse import Sparse


class Centring:
    """Subtracts the means before the threshold is tested, and adds them again after decoding, in float32.

    A value is split off for what it differs by from its mean, and travels as it was: bit for bit, mean included.
    """

    def __init__(self, means_D: F32Array | None) -> None:
        """Without means, sizes can be told and nothing else."""
        if means_D is not None and (means_D.ndim != 1 or means_D.dtype != np.float32 or not np.isfinite(means_D).all()):
            raise CodecError("means are finite float32 [d]")
        self._agreed_D = means_D

    def centred(self, hidden_ND: F32Array) -> F32Array:
        """Infinite where the difference is beyond float32. Raises CodecError for another hidden size."""
        means_D = self._means(hidden_ND.shape[1])
        if not isinstance(hidden_ND, np.ndarray):
            centred_ND: F32Array = torch_kernels().centred(hidden_ND, means_D)
            return centred_ND
        with np.errstate(over="ignore", invalid="ignore"):  # a signalling NaN is a value like any other
            return hidden_ND - means_D

    def restored(self, centred_ND: F32Array) -> F32Array:
        """The means added again, in place."""
        means_D = self._means(centred_ND.shape[1])
        with np.errstate(over="ignore", invalid="ignore"):
            centred_ND += means_D
        return centred_ND

    def put(self, sparse: Sparse, hidden_ND: F32Array) -> None:
        """Sparse values into their places; CodecError where one differs from its mean by less than the threshold."""
        sparse.put(hidden_ND, 0)
        with np.errstate(over="ignore", invalid="ignore"):
            centred_M = sparse.values.view(np.float32) - self._means(hidden_ND.shape[1])[sparse.columns]
        if ((centred_M.view(np.uint32) & MAGNITUDE) < sparse.tau_bits).any():
            raise CodecError("a sparse value lies below the threshold")

    def _means(self, hidden_size: int) -> F32Array:
        if self._agreed_D is None:
            raise CodecError("the session has not agreed on the means that are subtracted")
        if hidden_size != self._agreed_D.size:
            raise CodecError(f"the session agreed on {self._agreed_D.size} channels, and these are {hidden_size}")
        return self._agreed_D
