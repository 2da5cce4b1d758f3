"""What decoder layers are fed when the full-precision model reads calibration text, and how to run one alone.

Methods that learn a layer's storage from its output need this in place of the statistics of `calibrate`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import Cache

from testbed.core.errors import ModelError
from testbed.quantization.config import LEAST_TOKENS
from testbed.quantization.targets import find_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCall:
    """One sequence as it entered a decoder layer: hidden states [1, N, d] and, by name, masks and positions."""

    hidden: torch.Tensor
    others: Mapping[str, Any]

    def run(self, block: nn.Module, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """The layer's output [1, N, d] in float32, for these hidden states or for others in their place."""
        result = block((self.hidden if hidden is None else hidden).float(), **self.others)
        output: torch.Tensor = result[0] if isinstance(result, tuple) else result
        return output


Blocks = Mapping[int, Sequence[BlockCall]]


def collect_blocks(
    module: nn.Module, run: Callable[[], object], *, first_layer: int = 0, layers: Collection[int] | None = None
) -> Blocks:
    """Watch what enters decoder layers while `run` sends whole sequences, each in one pass, through the module.

    By the layers' numbers in the whole model; `layers` limits it to some, since all hidden states are kept. Raises
    ModelError where the text has fewer than LEAST_TOKENS tokens or a hidden state is not finite.
    """
    found: dict[int, list[dict[str, Any]]] = {}
    hooks = []
    for block in find_blocks(module, first_layer):
        if layers is None or block.layer in layers:
            watch = _watch(block.module, found.setdefault(block.layer, []))
            hooks.append(block.module.register_forward_pre_hook(watch, with_kwargs=True))
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    copies: dict[int, torch.Tensor] = {}
    return {layer: _calls(layer, seen, copies) for layer, seen in found.items()}


def _watch(block: nn.Module, seen: list[dict[str, Any]]) -> Callable[..., None]:
    names = list(inspect.signature(block.forward).parameters)

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(dict(zip(names, args, strict=False)) | kwargs)

    return hook


def _calls(layer: int, seen: list[dict[str, Any]], copies: dict[int, torch.Tensor]) -> list[BlockCall]:
    """Calls without a cache, in float32, made of tensors that gradients can pass; what layers share stays shared."""
    calls = []
    for inputs in seen:
        others = {name: _plain(value, copies) for name, value in inputs.items()}
        hidden = others.pop("hidden_states")
        calls.append(BlockCall(hidden=hidden, others=others))
    _check(layer, calls)
    return calls


def _plain(value: Any, copies: dict[int, torch.Tensor]) -> Any:
    if isinstance(value, Cache):
        return None  # which a sequence's first pass reads nothing from
    if isinstance(value, tuple):
        return tuple(_plain(item, copies) for item in value)
    if not isinstance(value, torch.Tensor):
        return value
    if id(value) not in copies:
        copies[id(value)] = value.detach().clone().float() if value.is_floating_point() else value.clone()
    return copies[id(value)]


def _check(layer: int, calls: Sequence[BlockCall]) -> None:
    num_tokens = sum(call.hidden.shape[1] for call in calls)
    if num_tokens < LEAST_TOKENS:
        raise ModelError(
            "the calibration text is too short", value=f"{num_tokens} tokens", allowed=f">= {LEAST_TOKENS}"
        )
    if not all(torch.isfinite(call.hidden).all() for call in calls):
        raise ModelError("calibration met values that are not finite", path=f"layer {layer}")
