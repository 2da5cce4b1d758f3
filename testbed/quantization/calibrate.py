"""What calibration text tells of every linear layer's input: its second moments and its largest values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from testbed.core.errors import ModelError
from testbed.quantization.config import LEAST_TOKENS
from testbed.quantization.targets import find_targets


@dataclass(slots=True, kw_only=True)
class InputStatistics:
    """Of all rows x [C] that entered a layer: `gram` = sum x x^T [C, C] and `largest` = max |x_j| [C], float32."""

    gram: torch.Tensor
    largest: torch.Tensor
    num_rows: int = field(default=0)

    def add(self, rows_NC: torch.Tensor) -> None:
        rows_NC = rows_NC.detach().float()
        self.gram += rows_NC.T @ rows_NC
        self.largest = torch.maximum(self.largest, rows_NC.abs().amax(0))
        self.num_rows += rows_NC.shape[0]


Statistics = Mapping[str, InputStatistics]


def collect(
    module: nn.Module, run: Callable[[], object], *, first_layer: int = 0, layers: Collection[int] | None = None
) -> Statistics:
    """Watch the inputs of the decoder layers' linear parts while `run` sends text through the module.

    By the parts' names in the whole model; `layers` limits it to some, since second moments take C^2 numbers a part.
    Raises ModelError where the text has fewer than LEAST_TOKENS tokens or an input is not finite.
    """
    found: dict[str, InputStatistics] = {}
    hooks = []
    for target in find_targets(module, first_layer):
        if target.layer is not None and (layers is None or target.layer in layers):
            found[target.key] = _nothing_yet(target.weight)
            hooks.append(target.module.register_forward_pre_hook(_watch(found[target.key])))
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    for key, statistics in found.items():
        _check(key, statistics)
    return found


def _nothing_yet(weight: torch.Tensor) -> InputStatistics:
    columns = weight.shape[1]
    zeros = torch.zeros(columns, columns, device=weight.device)
    return InputStatistics(gram=zeros, largest=torch.zeros(columns, device=weight.device))


def _watch(statistics: InputStatistics) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        statistics.add(inputs[0].reshape(-1, inputs[0].shape[-1]))

    return hook


def _check(key: str, statistics: InputStatistics) -> None:
    if statistics.num_rows < LEAST_TOKENS:
        raise ModelError(
            "the calibration text is too short", value=f"{statistics.num_rows} tokens", allowed=f">= {LEAST_TOKENS}"
        )
    if not torch.isfinite(statistics.largest).all():
        raise ModelError("calibration met values that are not finite", path=key)
