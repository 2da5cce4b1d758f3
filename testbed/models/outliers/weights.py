"""Outliers put into a model's hidden states without changing what it computes: the arithmetic, in float64 [our design].

An RMSNorm sees x only through x / sqrt(mean(x^2) + eps), so x' = A x with A^T A = I computes the same once every
matrix that reads a hidden state undoes A. A is made so that large values sit where large models have them:

R1  widen d to D: one channel of x' is the coordinate of x along the direction of its largest second moment, the others
    are a random rotation of the rest, so all their second moments are alike and D / d times smaller.
R2  channels that hold `massive` values in the first token and 0 in every other. That token attends to itself alone, so
    its path through the layers is one constant, and a rank-one term in each reader's massive columns restores what the
    reader computed on it.
R3  channels that hold `constant` values in every token: norm weight 0 hides them, a negative eps' keeps the mean
    square.

Shapes: d hidden size, D widened hidden size, R outputs of a reader, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

Tensors = Mapping[str, torch.Tensor]
Activation = Callable[[torch.Tensor], torch.Tensor]

READERS_OF_INPUT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
READERS_OF_MIDDLE = ("mlp.gate_proj", "mlp.up_proj")
WRITERS = ("self_attn.o_proj", "mlp.down_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Widening:
    """x' = A x, plus massive values in the first token and constant ones in every token.

    ``lift`` is A [D, d], with rows of zeros at the channels of those values; ``outlier_channel`` is where the largest
    second moment goes.
    """

    lift: torch.Tensor
    outlier_channel: int
    massive_channels: torch.Tensor
    massive: torch.Tensor
    constant_channels: torch.Tensor
    constant: torch.Tensor
    eps: float
    new_eps: float

    @property
    def width(self) -> int:
        """D."""
        return self.lift.shape[0]

    def norm_weight(self) -> torch.Tensor:
        """What every norm multiplies with: the old weights have moved into the readers."""
        weight_D = torch.ones(self.width, dtype=torch.float64)
        weight_D[self.constant_channels] = 0.0
        return weight_D

    def hidden(self, x_Nd: torch.Tensor, *, is_first: bool = False) -> torch.Tensor:
        """What the widened model holds where the original holds x [n, d]."""
        wide_ND = x_Nd @ self.lift.T
        wide_ND[:, self.constant_channels] = self.constant
        if is_first:
            wide_ND[:, self.massive_channels] = self.massive
        return wide_ND

    def writer(self, weight_dC: torch.Tensor) -> torch.Tensor:
        """A W, or A b: of a matrix or a bias whose result is added to the hidden state."""
        return self.lift @ weight_dC

    def reader(self, weight_Rd: torch.Tensor, gain_d: torch.Tensor, first_d: torch.Tensor) -> torch.Tensor:
        """W' [R, D] with W' norm'(x') = W norm(x); `gain_d` is norm's weight, `first_d` the first token's x."""
        small, wide = weight_Rd.shape[1], self.width
        weight_RD: torch.Tensor = (small / wide) ** 0.5 * (weight_Rd * gain_d) @ self.lift.T
        if len(self.massive):
            wanted_R = weight_Rd @ rms_normed(first_d, gain_d, self.eps)
            hidden_D = rms_normed(self.hidden(first_d[None], is_first=True)[0], self.norm_weight(), self.new_eps)
            seen = hidden_D[self.massive_channels]
            weight_RD[:, self.massive_channels] = torch.outer(wanted_R - weight_RD @ hidden_D, seen / (seen @ seen))
        return weight_RD


def rms_normed(x_d: torch.Tensor, gain_d: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm: g x / sqrt(mean(x^2) + eps)."""
    normed_d: torch.Tensor = gain_d * x_d / torch.sqrt(x_d.square().mean() + eps)
    return normed_d


def make_widening(
    moments_dd: torch.Tensor,
    *,
    width: int,
    massive: tuple[float, ...],
    constant: tuple[float, ...],
    eps: float,
    seed: int,
) -> Widening:
    """Draws A for hidden states with these second moments E[x x^T] at the cut; channels are dealt at random."""
    small = moments_dd.shape[0]
    rng = np.random.default_rng(seed)
    places = torch.from_numpy(rng.permutation(width))
    ends = np.cumsum([1, len(massive), len(constant)])
    outlier, massive_at, constant_at, rest = torch.tensor_split(places, ends.tolist())
    vectors_dd = torch.linalg.eigh(moments_dd)[1].flip(1)
    top_d = vectors_dd[:, 0]
    mixing = np.linalg.qr(rng.standard_normal((len(rest), small - 1)))[0]
    lift = torch.zeros(width, small, dtype=torch.float64)
    lift[outlier[0]] = top_d * torch.sign(top_d[top_d.abs().argmax()])
    lift[rest] = torch.from_numpy(mixing) @ vectors_dd[:, 1:].T
    values = torch.tensor(constant, dtype=torch.float64)
    return Widening(
        lift=lift,
        outlier_channel=int(outlier[0]),
        massive_channels=massive_at,
        massive=torch.tensor(massive, dtype=torch.float64),
        constant_channels=constant_at,
        constant=values,
        eps=eps,
        new_eps=(small * eps - float(values.square().sum())) / width,
    )


def widened_layer(
    layer: Tensors, widening: Widening, first_d: torch.Tensor, *, activation: Activation, head_dim: int
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A decoder layer's tensors after the change, and the first token's x behind the original layer."""
    gain_d, middle_gain_d = layer["input_layernorm.weight"], layer["post_attention_layernorm.weight"]
    middle_d = first_d + _attention_of_one(layer, rms_normed(first_d, gain_d, widening.eps), head_dim)
    changed = dict(layer)
    for name in ("input_layernorm.weight", "post_attention_layernorm.weight"):
        changed[name] = widening.norm_weight()
    for names, gain, x_d in ((READERS_OF_INPUT, gain_d, first_d), (READERS_OF_MIDDLE, middle_gain_d, middle_d)):
        for name in names:
            changed[f"{name}.weight"] = widening.reader(layer[f"{name}.weight"], gain, x_d)
    for name in _writer_tensors(layer):
        changed[name] = widening.writer(layer[name])
    inner_d = rms_normed(middle_d, middle_gain_d, widening.eps)
    gated = activation(_linear(layer, "mlp.gate_proj", inner_d)) * _linear(layer, "mlp.up_proj", inner_d)
    return changed, middle_d + _linear(layer, "mlp.down_proj", gated)


def _attention_of_one(layer: Tensors, inner_d: torch.Tensor, head_dim: int) -> torch.Tensor:
    """A token that attends to itself alone gets its own values, whatever its query, key and position are."""
    value_KH = _linear(layer, "self_attn.v_proj", inner_d).view(-1, head_dim)
    heads = layer["self_attn.o_proj.weight"].shape[1] // head_dim
    mixed = value_KH.repeat_interleave(heads // value_KH.shape[0], dim=0).reshape(-1)
    return _linear(layer, "self_attn.o_proj", mixed)


def _linear(layer: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    result = layer[f"{name}.weight"] @ x
    bias = layer.get(f"{name}.bias")
    return result if bias is None else result + bias


def _writer_tensors(layer: Tensors) -> Iterator[str]:
    return (f"{name}.{kind}" for name in WRITERS for kind in ("weight", "bias") if f"{name}.{kind}" in layer)
