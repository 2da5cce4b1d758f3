"""SmoothQuant (Xiao et al. 2023): W8A8, with the activations' outlier channels moved into the weights first.

    s_j = max|X_j|^alpha / max|W_j|^(1 - alpha),    x W^T = (x / s) (W diag(s))^T

The factors are found on calibration text. Published practice folds 1 / s into the norm before the layer; here the layer
divides its own input [our design], which is the same function, serves layers without a norm before them and costs one
vector per layer. Weights are symmetric int8 per output channel, inputs symmetric int8 per token unless others are asked
for; products of the rounded values are computed in floating point.
"""

from __future__ import annotations

import torch

from testbed.quantization.affine import choose_grid, quantise
from testbed.quantization.calibrate import InputStatistics
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import WeightFormat
from testbed.quantization.packed import PackedLinear
from testbed.quantization.stores import AffineStore

ALPHA = 0.85
_LEAST = 1e-5  # of a channel's largest value: a channel that is always zero keeps a finite factor


class SmoothQuant:
    """Moves the spread of inputs into the weights, then rounds both."""

    needs_text = True

    def __init__(self, config: WeightConfig) -> None:
        self._alpha = ALPHA if config.alpha is None else config.alpha

    def pack(
        self, weight_RC: torch.Tensor, bias: torch.Tensor | None, fmt: WeightFormat, seen: InputStatistics | None
    ) -> PackedLinear:
        """One linear layer, smoothed by what its input was seen to be."""
        assert seen is not None, "checked by quantise_module"
        factors_C = smooth_factors(seen.largest, weight_RC, self._alpha)
        smoothed_RC = weight_RC.float() * factors_C
        store = AffineStore(fmt, quantise(smoothed_RC, choose_grid(smoothed_RC, fmt), fmt))
        return PackedLinear(store, bias, smooth=factors_C)


def smooth_factors(largest_input_C: torch.Tensor, weight_RC: torch.Tensor, alpha: float) -> torch.Tensor:
    """Factors s [C] float32: how far each input channel's range moves into the weights."""
    largest_weight_C = weight_RC.float().abs().amax(0).clamp(min=_LEAST)
    return largest_input_C.clamp(min=_LEAST) ** alpha / largest_weight_C ** (1 - alpha)
