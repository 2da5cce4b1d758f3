"""Atom (Zhao et al. 2023, arXiv 2310.19102): mixed precision by channel.

Channels are put in the order of their inputs' square sums on calibration text. The last, the outliers, are kept at 8
bits in weight and activation; the others have few bits with groups counted in the new order. Weights are rounded by
GPTQ, the body first, so that the outliers make up for its error; the body's range is clipped to 0.85, that of its
activations to 0.9, outliers are not clipped.

Published practice folds the order into the weights of whatever comes before a layer; here the layer orders its own
input [our design], which is the same function, serves every family and costs 32 bits a channel. Products of the rounded
values are computed in floating point.
"""

from __future__ import annotations

import torch

from testbed.core.errors import ModelError
from testbed.quantization.calibrate import InputStatistics
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import OUTLIERS, WeightFormat
from testbed.quantization.gptq import gptq_parts
from testbed.quantization.packed import PackedLinear
from testbed.quantization.stores import AffineStore, MixedStore


class Atom:
    """Outlier channels at 8 bits, moved to the end; all others at few bits in groups, by GPTQ."""

    needs_text = True

    def __init__(self, config: WeightConfig) -> None:
        self._config = config

    def pack(
        self, weight_RC: torch.Tensor, bias: torch.Tensor | None, fmt: WeightFormat, seen: InputStatistics | None
    ) -> PackedLinear:
        """One linear layer, its channels ordered by what its input was seen to be."""
        assert seen is not None, "checked by quantise_module"
        if not fmt.outliers:
            raise ModelError("atom keeps outlier channels", path="outlier_channels", value=0, allowed="at least 1")
        order = torch.argsort(seen.gram.diagonal(), stable=True)
        parts = [(fmt.body_columns(weight_RC.shape[1]), fmt.body), (fmt.outliers, OUTLIERS)]
        body, outliers = gptq_parts(weight_RC[:, order], seen.gram[order][:, order], parts)
        store = MixedStore(fmt, AffineStore(fmt.body, body), AffineStore(OUTLIERS, outliers))
        return PackedLinear(store, bias, order=order.to(torch.int32))
