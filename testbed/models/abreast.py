"""Several sequences through one pass, each bit for bit as if it ran alone.

What a product of matrices adds up in which order depends on how many rows it has, and the last bit of an activation
such as SiLU on where in a vector register a value comes to lie. So these run row by row, each row in the very call
that a lone sequence makes. Sums, products and norms, which give each position the same bits whatever else is packed
beside it, run once for all rows: most of a small model's time is the interpreter's, once a layer instead of once a
layer and sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

Forward = Callable[[torch.Tensor], torch.Tensor]
_MATRIX = 2  # dimensions


def row_by_row(module: nn.Module) -> Mapping[nn.Module, Forward]:
    """For each matrix, plain or packed, and each activation, its forward pass as one call a row."""
    return {leaf: _each_row(_bare(leaf)) for leaf in module.modules() if _has_matrix(leaf) or _is_activation(leaf)}


def _bare(leaf: nn.Module) -> Forward:
    """The product itself, without a module's attribute look-ups, where there is nothing else to it."""
    if type(leaf) is not nn.Linear:
        return leaf.forward
    weight, bias, linear = leaf.weight, leaf.bias, nn.functional.linear
    return lambda row_1K: linear(row_1K, weight, bias)


def _has_matrix(leaf: nn.Module) -> bool:
    if isinstance(leaf, nn.Embedding) or next(leaf.children(), None) is not None:
        return False
    return any(item.dim() >= _MATRIX for item in (*leaf.parameters(), *leaf.buffers()))


def _is_activation(leaf: nn.Module) -> bool:
    """A leaf that holds nothing at all."""
    if isinstance(leaf, nn.Dropout | nn.Identity) or next(leaf.children(), None) is not None:
        return False
    return next(leaf.parameters(), None) is None and next(leaf.buffers(), None) is None


def _each_row(forward: Forward) -> Forward:
    def rows(packed_NK: torch.Tensor) -> torch.Tensor:
        return torch.cat([forward(row_1K) for row_1K in torch.split(packed_NK, 1, -2)], -2)

    return rows


@contextmanager
def installed(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """These forward passes in place of the modules' own, while the block lasts."""
    for module, forward in forwards.items():
        module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for module in forwards:
            del module.__dict__["forward"]
