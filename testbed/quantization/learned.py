"""A linear layer whose storage is being learned: it computes what its packed form would, and gradients pass.

Learnable weight clipping: a group spans [sigmoid(b) min w, sigmoid(a) max w]. Learnable transformation: the input is
divided by positive factors that the weight's columns are multiplied by. Rounding counts as the identity in the backward
pass (straight-through estimator).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from testbed.quantization.activations import round_inputs
from testbed.quantization.affine import grid_between, grid_numbers, group_ends, nearest, quantise, spread
from testbed.quantization.formats import ActivationFormat, WeightFormat
from testbed.quantization.packed import PackedLinear
from testbed.quantization.stores import AffineStore

INSIDE = 4.0  # sigmoid(4) = 0.982: where clipping was published to start, a little inside the group's ends
OPEN = 8.0  # sigmoid(8) = 0.9997


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """How far the learning of a decoder layer is; `loss` is the epoch's mean squared error of the layer's output."""

    layer: int
    epoch: int
    num_epochs: int
    loss: float


Watch = Callable[[Epoch], None]


def no_watch(epoch: Epoch) -> None:
    """Tells nobody."""


class LearnedLinear(nn.Module):
    """y = x W^T + b as stored in a format; `factors` [in] start the transformation where the format keeps one."""

    def __init__(
        self,
        weight_RC: torch.Tensor,
        bias: torch.Tensor | None,
        fmt: WeightFormat,
        *,
        inputs: ActivationFormat | None = None,
        factors: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.format, self.inputs = fmt, inputs
        self.register_buffer("weight", weight_RC.detach().float())
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        clips = torch.full((weight_RC.shape[0], fmt.groups(weight_RC.shape[1])), INSIDE, device=weight_RC.device)
        self.clip_low, self.clip_high = nn.Parameter(clips), nn.Parameter(clips.clone())
        self.log_factors = None if factors is None else nn.Parameter(factors.float().log())

    @property
    def clips(self) -> list[nn.Parameter]:
        return [self.clip_low, self.clip_high]

    @property
    def transformation(self) -> list[nn.Parameter]:
        return [] if self.log_factors is None else [self.log_factors]

    @torch.no_grad()
    def clip_to(self, start: float) -> None:
        """Every group's clipping, as what the sigmoid is taken of."""
        for clip in self.clips:
            clip.fill_(start)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight_RC = self._weight()
        if self.log_factors is not None:
            x = x / self.log_factors.exp()
        if self.inputs is not None:
            x = round_inputs(x, self.inputs, _round)
        scales, zeros = grid_numbers(*self._ends(weight_RC), self.format, _round)
        scale, zero = (spread(item, weight_RC.shape[1], self.format) for item in (_in_half(scales), zeros))
        stored_RC = (nearest(weight_RC, scale, zero, self.format.bits, _round) - zero) * scale
        return functional.linear(x, stored_RC, self._buffers["bias"])

    @torch.no_grad()
    def packed(self, bias: torch.Tensor | None) -> PackedLinear:
        """The layer as learned so far; `bias` in the model's own dtype."""
        weight_RC = self._weight()
        grid = grid_between(*self._ends(weight_RC), self.format)
        store = AffineStore(self.format, quantise(weight_RC, grid, self.format))
        return PackedLinear(store, bias, smooth=None if self.log_factors is None else self.log_factors.exp())

    def _weight(self) -> torch.Tensor:
        weight_RC = self.get_buffer("weight")
        return weight_RC if self.log_factors is None else weight_RC * self.log_factors.exp()

    def _ends(self, weight_RC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = group_ends(weight_RC, self.format)
        return low * self.clip_low.sigmoid(), high * self.clip_high.sigmoid()


def _round(x: torch.Tensor) -> torch.Tensor:
    return x + (x.round() - x).detach()


def _in_half(x: torch.Tensor) -> torch.Tensor:
    return x + (x.half().float() - x).detach()
