"""Replaces the matrices of a module by packed ones, and rounds what enters them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import torch
from torch import nn

from testbed.core.errors import ModelError
from testbed.core.registry import QUANTISERS
from testbed.quantization.activations import round_inputs
from testbed.quantization.calibrate import InputStatistics, Statistics
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import ActivationFormat, WeightFormat
from testbed.quantization.packed import PackedEmbedding, PackedLinear
from testbed.quantization.rtn import nearest_store
from testbed.quantization.targets import EMBEDDING, HEAD, Target, find_targets

Progress = Callable[[int, int], None]  # matrices done, and all


def no_progress(num_done: int, num_all: int) -> None:
    """Tells nobody."""


class Quantiser(Protocol):
    """A method: built from a configuration, it packs one linear layer at a time."""

    needs_text: bool

    def pack(
        self, weight_RC: torch.Tensor, bias: torch.Tensor | None, fmt: WeightFormat, seen: InputStatistics | None
    ) -> PackedLinear:
        """The layer with weight [out, in]; `seen` is there where `needs_text` says so."""
        ...


def needs_text(config: WeightConfig) -> bool:
    """Whether `quantise_module` wants statistics for this configuration."""
    return bool(QUANTISERS.load(config.method).needs_text) and not (config.front is None and config.back is None)


def quantise_module(
    module: nn.Module,
    config: WeightConfig,
    *,
    first_layer: int = 0,
    statistics: Statistics | None = None,
    progress: Progress = no_progress,
) -> nn.Module:
    """Store what `config` says packed and round the inputs that it says, in place; returns the module.

    `first_layer` is the number in the whole model of the module's first decoder layer. A full-precision matrix is
    dropped as soon as its packed form is there. Raises ModelError for weights that are not finite, a format that does
    not fit a matrix, and a method that needs statistics and has none.
    """
    quantiser: Quantiser = QUANTISERS.load(config.method)(config)
    targets = list(find_targets(module, first_layer))
    _check_known(targets, config, quantiser, {} if statistics is None else statistics)
    for num_done, target in enumerate(targets, start=1):
        fmt = format_for(target, config)
        if fmt is not None:
            seen = None if statistics is None else statistics.get(target.key)
            module.set_submodule(target.path, _packed(target, fmt, quantiser, seen))
        round_before(module.get_submodule(target.path), inputs_for(target, config))
        progress(num_done, len(targets))
    return module


def format_for(target: Target, config: WeightConfig) -> WeightFormat | None:
    """How this matrix is to be stored; None: as it is."""
    if target.layer is not None:
        return config.of_layer(target.layer)
    return config.embedding if target.key == EMBEDDING else config.head


def inputs_for(target: Target, config: WeightConfig) -> ActivationFormat | None:
    """How this matrix's input is to be rounded; None: not at all. Token table and LM head take theirs as it is."""
    inputs = None if target.layer is None else config.inputs_of_layer(target.layer)
    if inputs is None:
        return None
    fmt, columns = format_for(target, config), target.weight.shape[1]
    return inputs.check(columns=[columns if fmt is None else fmt.body_columns(columns)])


def round_before(module: nn.Module, inputs: ActivationFormat | None) -> None:
    """Make a linear layer, packed or not, round its input."""
    if isinstance(module, PackedLinear):
        module.inputs = inputs
    elif inputs is not None:
        module.register_forward_pre_hook(lambda _, given: (round_inputs(given[0], inputs),))


def _packed(target: Target, fmt: WeightFormat, quantiser: Quantiser, seen: InputStatistics | None) -> nn.Module:
    fmt.check(columns=[target.weight.shape[1]])
    if not torch.isfinite(target.weight).all():
        raise ModelError("weights hold NaN or infinite values and can't be quantised", path=target.key)
    if target.key == EMBEDDING:
        scale = getattr(target.module, "embed_scale", None)
        return PackedEmbedding(nearest_store(target.weight, fmt), dtype=target.weight.dtype, scale=scale)
    if target.key == HEAD:
        return PackedLinear(nearest_store(target.weight, fmt), target.bias)
    return quantiser.pack(target.weight, target.bias, fmt, seen)


def _check_known(
    targets: Collection[Target], config: WeightConfig, quantiser: Quantiser, statistics: Statistics
) -> None:
    if not targets:
        raise ModelError("nothing in this module can be quantised", allowed="linear layers in numbered blocks")
    if not quantiser.needs_text:
        return
    for target in targets:
        if target.layer is not None and config.of_layer(target.layer) is not None and target.key not in statistics:
            raise ModelError(f"{config.method} needs calibration text for every layer", path=target.key)
