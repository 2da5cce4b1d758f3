"""Damage to measure pebble's sensitivity with: weights rounded to few bits, hidden states rounded at a cut.

Both are plain round-to-nearest, so that the figures on the model card need nothing but this file: weights symmetric
with one scale per output row, hidden states affine with one offset and the scale (max - min) / (2^bits - 1) per token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import LlamaForCausalLM


def round_rows(weight_OI: torch.Tensor, bits: int) -> torch.Tensor:
    """Symmetric rounding of each output row to 2^bits - 1 levels."""
    largest = 2 ** (bits - 1) - 1
    scale_O1 = weight_OI.abs().amax(-1, keepdim=True).clamp_min(1e-12) / largest
    rounded_OI: torch.Tensor = (weight_OI / scale_O1).round().clamp(-largest, largest) * scale_O1
    return rounded_OI


def round_tokens(hidden_BTD: torch.Tensor, bits: int) -> torch.Tensor:
    """Affine rounding of each token's hidden state to 2^bits levels between its least and its largest element."""
    low_BT1 = hidden_BTD.amin(-1, keepdim=True)
    span_BT1 = hidden_BTD.amax(-1, keepdim=True) - low_BT1
    scale_BT1 = span_BT1.clamp_min(1e-12) / (2**bits - 1)
    rounded_BTD: torch.Tensor = ((hidden_BTD - low_BT1) / scale_BT1).round() * scale_BT1 + low_BT1
    return rounded_BTD


@contextmanager
def rounded_weights(model: LlamaForCausalLM, layers: range, bits: int) -> Iterator[None]:
    """Inside the block the matrices of these decoder layers are rounded; afterwards they are as before."""
    matrices = [weight for index in layers for weight in model.model.layers[index].parameters() if weight.dim() == 2]
    originals = [weight.detach().clone() for weight in matrices]
    with torch.no_grad():
        for weight in matrices:
            weight.copy_(round_rows(weight, bits))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, original in zip(matrices, originals, strict=True):
                weight.copy_(original)


@contextmanager
def rounded_cut(model: LlamaForCausalLM, cut: int, bits: int) -> Iterator[None]:
    """Inside the block the hidden states that leave the first `cut` layers are rounded, every token of them."""

    def replace(module: torch.nn.Module, given: object, hidden_BTD: torch.Tensor) -> torch.Tensor:
        del module, given
        return round_tokens(hidden_BTD, bits)

    handle = model.model.layers[cut - 1].register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
