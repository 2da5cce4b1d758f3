"""Replaces the matrices of a module by packed ones, and rounds what enters them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from testbed.core.errors import ModelError
from testbed.core.registry import QUANTISERS
from testbed.quantization.activations import round_inputs
from testbed.quantization.blocks import BlockCall, Blocks
from testbed.quantization.calibrate import InputStatistics, Statistics
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import ActivationFormat, WeightFormat
from testbed.quantization.learned import Watch, no_watch
from testbed.quantization.packed import PackedEmbedding, PackedLinear
from testbed.quantization.rtn import nearest_store
from testbed.quantization.targets import EMBEDDING, HEAD, Block, Target, find_blocks, find_targets

Progress = Callable[[int, int], None]  # matrices done, and all
Pack = Callable[[Target, WeightFormat], PackedLinear]


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


@runtime_checkable
class BlockQuantiser(Protocol):
    """A method that packs a decoder layer as a whole."""

    def pack_block(
        self,
        block: Block,
        fmt: WeightFormat,
        inputs: ActivationFormat | None,
        calls: Sequence[BlockCall],
        watch: Watch = no_watch,
    ) -> Mapping[str, PackedLinear]:
        """The layer's matrices by their names in the whole model; `calls` are the sequences that enter the layer.

        `inputs` says how its linear parts' inputs are rounded. The layer itself stays as it is.
        """
        ...


def needs_text(config: WeightConfig) -> bool:
    """Whether `quantise_module` wants statistics for this configuration."""
    return _changes_layers(config) and bool(QUANTISERS.load(config.method).needs_text)


def needs_blocks(config: WeightConfig) -> bool:
    """Whether `quantise_module` wants what enters the decoder layers for this configuration."""
    return _changes_layers(config) and issubclass(QUANTISERS.load(config.method), BlockQuantiser)


def quantise_module(
    module: nn.Module,
    config: WeightConfig,
    *,
    first_layer: int = 0,
    statistics: Statistics | None = None,
    blocks: Blocks | None = None,
    progress: Progress = no_progress,
    watch: Watch = no_watch,
) -> nn.Module:
    """Store what `config` says packed and round the inputs that it says, in place; returns the module.

    `first_layer` is the number in the whole model of the module's first decoder layer. `statistics` and `blocks` are
    for methods that need them, and `watch` hears of every epoch of those that learn. A full-precision matrix is
    dropped as soon as its packed form is there. Raises ModelError for weights that are not finite, a format that does
    not fit a matrix, and a method that lacks what it needs.
    """
    quantiser: Quantiser | BlockQuantiser = QUANTISERS.load(config.method)(config)
    targets = list(find_targets(module, first_layer))
    _check(targets, config)
    pack: Pack
    if isinstance(quantiser, BlockQuantiser):
        _check_known(targets, config, blocks or {}, lambda target: target.layer)
        pack = _ByBlock(quantiser, config, find_blocks(module, first_layer), blocks or {}, watch).pack
    else:
        if quantiser.needs_text:
            _check_known(targets, config, statistics or {}, lambda target: target.key)
        pack = partial(_pack_matrix, quantiser, statistics or {})
    for num_done, target in enumerate(targets, start=1):
        fmt = format_for(target, config)
        if fmt is not None:
            part = _packed_table(target, fmt) if target.layer is None else pack(target, fmt)
            module.set_submodule(target.path, part)
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


def _pack_matrix(quantiser: Quantiser, statistics: Statistics, target: Target, fmt: WeightFormat) -> PackedLinear:
    return quantiser.pack(target.weight, target.bias, fmt, statistics.get(target.key))


class _ByBlock:
    """Packs a whole decoder layer when the first of its matrices is asked for."""

    def __init__(
        self,
        quantiser: BlockQuantiser,
        config: WeightConfig,
        layers: Iterable[Block],
        blocks: Blocks,
        watch: Watch,
    ) -> None:
        self._quantiser, self._config, self._blocks, self._watch = quantiser, config, blocks, watch
        self._layers = {block.layer: block for block in layers}
        self._parts: dict[str, PackedLinear] = {}

    def pack(self, target: Target, fmt: WeightFormat) -> PackedLinear:
        assert target.layer is not None, "tables are packed apart"
        if target.key not in self._parts:
            inputs, calls = self._config.inputs_of_layer(target.layer), self._blocks[target.layer]
            parts = self._quantiser.pack_block(self._layers[target.layer], fmt, inputs, calls, self._watch)
            self._parts = dict(parts)
        return self._parts.pop(target.key)


def _packed_table(target: Target, fmt: WeightFormat) -> nn.Module:
    """Token table or LM head, rounded to nearest under every method."""
    store = nearest_store(target.weight, fmt)
    if target.key == HEAD:
        return PackedLinear(store, target.bias)
    return PackedEmbedding(store, dtype=target.weight.dtype, scale=getattr(target.module, "embed_scale", None))


def _check(targets: Collection[Target], config: WeightConfig) -> None:
    if not targets:
        raise ModelError("nothing in this module can be quantised", allowed="linear layers in numbered blocks")
    for target in targets:
        fmt = format_for(target, config)
        if fmt is not None:
            fmt.check(columns=[target.weight.shape[1]])
            if not torch.isfinite(target.weight).all():
                raise ModelError("weights hold NaN or infinite values and can't be quantised", path=target.key)


def _check_known(
    targets: Collection[Target], config: WeightConfig, known: Container[object], key_of: Callable[[Target], object]
) -> None:
    for target in targets:
        if target.layer is not None and config.of_layer(target.layer) is not None and key_of(target) not in known:
            raise ModelError(f"{config.method} needs calibration text for every layer", path=target.key)


def _changes_layers(config: WeightConfig) -> bool:
    return config.front is not None or config.back is not None
