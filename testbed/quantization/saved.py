"""Packed weights as a folder: `packed.safetensors` with the tensors, `quantization.json` with what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from testbed.core.errors import ModelError
from testbed.quantization.apply import inputs_for, round_before
from testbed.quantization.config import WeightConfig
from testbed.quantization.packed import PackedEmbedding, PackedLinear
from testbed.quantization.settings import Matrix, Origin, Settings, read_settings, write_settings
from testbed.quantization.stores import empty_store
from testbed.quantization.targets import EMBEDDING, Target, find_targets, key_of

TENSORS = "packed.safetensors"


def save_quantised(
    module: nn.Module, folder: Path, config: WeightConfig, *, first_layer: int = 0, origin: Origin | None = None
) -> int:
    """Write every packed matrix of a module, under its name in the whole model; returns how many there are."""
    parts = dict(_packed_parts(module, first_layer))
    tensors = {f"{key}/{name}": tensor for key, part in parts.items() for name, tensor in part.state_dict().items()}
    matrices = {key: _describe(part) for key, part in parts.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / TENSORS)
    write_settings(folder, Settings(config=config, matrices=matrices, origin=origin))
    return len(matrices)


def load_quantised(module: nn.Module, folder: Path, *, first_layer: int = 0) -> WeightConfig:
    """Put a folder's packed matrices in the place of a module's own, in place; returns how they were made.

    Reads only the tensors that this module has a place for. Raises ModelError for a folder that can't be read, one
    that lacks a matrix it should hold, or one of another model.
    """
    settings = read_settings(folder)
    config = settings.config
    try:
        with safe_open(str(folder / TENSORS), framework="pt") as file:
            stored = set(file.keys())
            for target in list(find_targets(module, first_layer)):
                matrix = settings.matrices.get(target.key)
                if matrix is not None:
                    part = _empty(target, matrix, folder)
                    names = [(name, f"{target.key}/{name}") for name in part.state_dict()]
                    missing = [full for _, full in names if full not in stored]
                    if missing:
                        raise ModelError("tensor missing from the packed weights", file=folder, value=missing[0])
                    device = target.weight.device
                    state = {name: file.get_tensor(full).to(device) for name, full in names}
                    part.load_state_dict(state, assign=True)
                    module.set_submodule(target.path, part)
                elif target.layer is not None and config.of_layer(target.layer) is not None:
                    raise ModelError("the folder holds no packed weights for this layer", file=folder, value=target.key)
                round_before(module.get_submodule(target.path), inputs_for(target, config))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"cannot read packed weights: {error}", file=folder) from None
    return config


def _packed_parts(module: nn.Module, first_layer: int) -> Iterator[tuple[str, PackedLinear | PackedEmbedding]]:
    for path, part in module.named_modules():
        if isinstance(part, PackedLinear | PackedEmbedding):
            yield key_of(path, first_layer), part


def _describe(part: PackedLinear | PackedEmbedding) -> Matrix:
    store = part.store
    return Matrix(rows=store.rows, columns=store.columns, format=store.format)


def _empty(target: Target, matrix: Matrix, folder: Path) -> PackedLinear | PackedEmbedding:
    rows, columns, fmt = matrix.rows, matrix.columns, matrix.format
    weight, bias = target.weight, target.bias
    if list(weight.shape) != [rows, columns]:
        raise ModelError(
            f"packed matrix {target.key} is another model's", file=folder, value=[rows, columns],
            allowed=str(list(weight.shape)),
        )  # fmt: skip
    store = empty_store(fmt, rows, columns)
    if target.key == EMBEDDING:
        return PackedEmbedding(store, dtype=weight.dtype, scale=getattr(target.module, "embed_scale", None))
    smooth = torch.zeros(columns) if fmt.smooth else None
    order = torch.zeros(columns, dtype=torch.int32) if fmt.outliers else None
    return PackedLinear(store, bias, smooth=smooth, order=order)
