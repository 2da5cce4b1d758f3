"""Which parts of a model's module can be stored packed, and what they are called whatever shard they are in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

EMBEDDING, HEAD = "embedding", "head"
_TABLES = ("embed_tokens", "wte", "embed_in")  # what the supported families call their token table
_HEADS = ("lm_head", "embed_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A matrix that can be replaced.

    `path` is its place in the module, `key` its name in the whole model: the layer's number there and its place in the
    layer (``7.mlp.up_proj``), "embedding" or "head". `layer` is None outside decoder layers.
    """

    key: str
    path: str
    layer: int | None
    module: nn.Module

    @property
    def weight(self) -> torch.Tensor:
        """[out, in]; GPT-2's Conv1D keeps it transposed. For the token table [V, d]."""
        weight = self.module.get_parameter("weight").detach()
        return weight.T.contiguous() if isinstance(self.module, Conv1D) else weight

    @property
    def bias(self) -> torch.Tensor | None:
        bias = getattr(self.module, "bias", None)
        return bias if isinstance(bias, torch.Tensor) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A decoder layer: its number in the whole model and its place in the module."""

    layer: int
    path: str
    module: nn.Module


def find_targets(module: nn.Module, first_layer: int = 0) -> Iterator[Target]:
    """Every linear layer inside a numbered block, the LM head and the token table, in the module's order.

    `first_layer` is the number in the whole model of the module's first block.
    """
    for path, part in module.named_modules():
        *_, name = path.split(".")
        is_linear = isinstance(part, nn.Linear | Conv1D)
        layer, rest = _place(path)
        if is_linear and layer is not None:
            number = layer + first_layer
            yield Target(key=f"{number}.{rest}".rstrip("."), path=path, layer=number, module=part)
        elif is_linear and name in _HEADS:
            yield Target(key=HEAD, path=path, layer=None, module=part)
        elif isinstance(part, nn.Embedding) and name in _TABLES:
            yield Target(key=EMBEDDING, path=path, layer=None, module=part)


def find_blocks(module: nn.Module, first_layer: int = 0) -> Iterator[Block]:
    """Every numbered block that holds a linear layer, in the module's order."""
    found: dict[str, int] = {}
    for target in find_targets(module, first_layer):
        if target.layer is not None:
            parts = target.path.split(".")
            end = next(index for index, part in enumerate(parts) if part.isdigit())
            found[".".join(parts[: end + 1])] = target.layer
    for path, layer in found.items():
        yield Block(layer=layer, path=path, module=module.get_submodule(path))


def key_of(path: str, first_layer: int = 0) -> str:
    """The name in the whole model of a part that `find_targets` would find, or has found before."""
    layer, rest = _place(path)
    if layer is not None:
        return f"{layer + first_layer}.{rest}".rstrip(".")
    return HEAD if path.rsplit(".", 1)[-1] in _HEADS else EMBEDDING


def _place(path: str) -> tuple[int | None, str]:
    """The block's number in the module and the place inside it."""
    parts = path.split(".")
    number = next((index for index, part in enumerate(parts) if part.isdigit()), None)
    return (None, "") if number is None else (int(parts[number]), ".".join(parts[number + 1 :]))
