"""The parts that shards are composed of: the modules with weights, by their names in the whole model.

Shards of overlapping cuts hold parts of the same names and may hold the very same ones: a part knows its weights, not
its shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from testbed.models.family import Family

PartKind = Literal["layer", "embedding", "head"]
PART_KINDS: tuple[PartKind, ...] = ("layer", "embedding", "head")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """``name`` in the whole model, ``path`` in the shard's module; ``kind`` is a layer or an end of the model."""

    name: str
    path: str
    kind: PartKind


def find_parts(module: nn.Module, family: Family, *, start: int, is_last: bool) -> tuple[Part, ...]:
    """Every innermost module with weights of a shard that begins at layer ``start``."""
    return tuple(_parts(module, family, start, "" if is_last else f"{family.decoder}."))


def _parts(module: nn.Module, family: Family, start: int, prefix: str) -> Iterator[Part]:
    stack = f"{family.decoder}.{family.layers}."
    fronts = tuple(f"{family.decoder}.{part}" for part in family.front_parts)
    for path, part in module.named_modules():
        if any(part.children()) or not part.state_dict():
            continue
        name = prefix + path
        if name.startswith(stack):
            layer, _, rest = name.removeprefix(stack).partition(".")
            yield Part(name=f"{stack}{int(layer) + start}.{rest}", path=path, kind="layer")
        else:
            yield Part(name=name, path=path, kind="embedding" if name in fronts else "head")
