"""Builds one shard's module: layers [start, stop) and their ends, with only their own tensors read from disk.

The module is the library's own, built without memory (meta device) from a config cut down to the shard's layers; then
exactly the tensors it asks for are read from the safetensors files and put in place. Parts of the other side are
removed before, so they are never asked for. Tensors stay views of the file's memory map: processes share their pages,
and they are aligned as the library itself has them, on which the last bits of a matrix product depend.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from testbed.core.errors import ModelError
from testbed.models.checkpoint import canonical_names, tensor_files
from testbed.models.families import FAMILIES
from testbed.models.family import Family
from testbed.models.parts import Part, find_parts
from testbed.models.source import ModelSource


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardModule:
    """What a shard runs: ``decoder`` alone, or with ``causal_lm`` the whole head behind it.

    ``parts`` are the places of its weights.
    """

    parts: tuple[Part, ...]
    config: PreTrainedConfig
    decoder: nn.Module
    causal_lm: nn.Module | None

    @property
    def outer(self) -> nn.Module:
        """The outermost module that the shard holds."""
        return self.decoder if self.causal_lm is None else self.causal_lm


class _NoPositions(nn.Module):
    """Stands for learned positions behind the cut, where they are already part of the hidden state: adds nothing."""

    def forward(self, *_: Any, **__: Any) -> torch.Tensor:
        """Negative zero, the one number that changes no other when added."""
        return torch.tensor(-0.0)


def load_module(
    source: ModelSource,
    *,
    start: int,
    stop: int,
    dtype: torch.dtype,
    device: torch.device,
    attention: str,
    absent: Collection[str] = (),
) -> ShardModule:
    """Layers [start, stop) of a model in ``dtype`` on ``device``, ready to run.

    The places of parts that ``absent`` names are left empty, and none of their tensors is read. Raises
    ModelError where a tensor is missing, has the wrong shape or cannot be read.
    """
    family, is_last = FAMILIES[source.shape.family], stop == source.shape.num_layers
    config = _shard_config(source, start, stop)
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, attn_implementation=attention, dtype=dtype
        )
    decoder = model.get_submodule(family.decoder)
    _remove_other_side(decoder, family, is_first=start == 0, is_last=is_last)
    outer = model if is_last else decoder
    parts = find_parts(outer, family, start=start, is_last=is_last)
    for part in parts:
        if part.name in absent:
            outer.set_submodule(part.path, nn.Identity())
    module = ShardModule(parts=parts, config=config, decoder=decoder, causal_lm=model if is_last else None)
    prefix = "" if is_last else f"{family.decoder}."
    wanted = {prefix + name: name for name in module.outer.state_dict()}
    tensors = _read(source, _checkpoint_names(wanted, family, start), dtype=dtype, device=device)
    _put(module.outer, {wanted[name]: tensor for name, tensor in tensors.items()}, source)
    _rebuild_buffers(module.outer, config, device)
    return module


def _shard_config(source: ModelSource, start: int, stop: int) -> PreTrainedConfig:
    """The model's config for layers [start, stop): per-layer lists sliced, nothing tied, inputs not scaled twice."""
    full = AutoConfig.from_pretrained(source.weights_folder())
    config: PreTrainedConfig = copy.deepcopy(full)
    for key, value in list(vars(full).items()):
        if "layer" in key and isinstance(value, list | tuple) and len(value) == full.num_hidden_layers:
            setattr(config, key, type(value)(value[start:stop]))
    config.num_hidden_layers = stop - start
    config.tie_word_embeddings = False
    if start > 0 and hasattr(config, "embedding_multiplier"):
        config.embedding_multiplier = 1.0  # Granite scales whatever enters the decoder, which the front has done
    return config


def _remove_other_side(decoder: nn.Module, family: Family, *, is_first: bool, is_last: bool) -> None:
    if not is_first:
        for part in family.front_parts:
            if getattr(decoder, part, None) is not None:
                setattr(decoder, part, _NoPositions() if part == family.position_table else None)
    if not is_last:
        for part in family.back_parts:
            if getattr(decoder, part, None) is not None:
                # OPT tests its two back parts against None, the other decoders call their norm
                setattr(decoder, part, None if "project_out" in family.back_parts else nn.Identity())


def _checkpoint_names(wanted: dict[str, str], family: Family, start: int) -> dict[str, str]:
    """{module tensor name: name in the whole checkpoint}: layer numbers counted from the model's first layer."""
    stack = f"{family.decoder}.{family.layers}."
    names = {}
    for name in wanted:
        layer, _, rest = name.removeprefix(stack).partition(".")
        names[name] = f"{stack}{int(layer) + start}.{rest}" if name.startswith(stack) else name
    return names


def _read(
    source: ModelSource, names: dict[str, str], *, dtype: torch.dtype, device: torch.device
) -> dict[str, torch.Tensor]:
    """The named tensors, each read once; files that hold none of them are not opened."""
    family, folder = FAMILIES[source.shape.family], source.weights_folder()
    files = tensor_files(folder)
    raw = canonical_names(files, family)
    by_file: dict[Path, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for own, name in names.items():
        stored = raw[_stored_name(name, raw, family, source)]
        by_file[files[stored]][stored].append(own)
    tensors: dict[str, torch.Tensor] = {}
    for path, wanted in sorted(by_file.items()):
        try:
            with safe_open(str(path), framework="pt", device=str(device)) as file:
                for stored, owners in wanted.items():
                    tensors |= dict.fromkeys(owners, file.get_tensor(stored).to(dtype))
        except (SafetensorError, OSError, RuntimeError) as error:
            raise ModelError(f"cannot read weights: {error}", file=path) from error
    return tensors


def _stored_name(name: str, available: dict[str, str], family: Family, source: ModelSource) -> str:
    """The checkpoint's name for a tensor; a tied LM head is the token table, read a second time."""
    table = f"{family.decoder}.{family.token_table}.weight"
    candidates = [name]
    if name == "lm_head.weight":
        candidates = [table] if source.shape.tied_embeddings else [name, family.head]
    for candidate in candidates:
        if candidate in available:
            return candidate
    raise ModelError("tensor missing from the checkpoint", file=source.folder, value=candidates[-1])


def _put(module: nn.Module, tensors: dict[str, torch.Tensor], source: ModelSource) -> None:
    expected = module.state_dict()
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"tensor {name} does not fit the model's config",
                file=source.folder,
                value=list(tensor.shape),
                allowed=str(list(expected[name].shape)),
            )
    module.load_state_dict(tensors, strict=True, assign=True)
    module.eval().requires_grad_(False)


def _rebuild_buffers(module: nn.Module, config: PreTrainedConfig, device: torch.device) -> None:
    """Buffers that no checkpoint holds: rotary frequencies (always float32) and Gemma's embedding scale."""
    for name, part in list(module.named_modules()):
        if not any(buffer.is_meta for buffer in part.buffers(recurse=False)):
            continue
        if "Rotary" in type(part).__name__:
            module.set_submodule(name, type(part)(config=config).to(device))
        elif isinstance(scale := getattr(part, "scalar_embed_scale", None), float | int):
            part.register_buffer("embed_scale", torch.tensor(scale, device=device), persistent=False)
        else:
            raise ModelError(f"no rule to rebuild the buffers of {type(part).__name__}", value=name)
