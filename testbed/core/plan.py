"""What a policy may know and what it decides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the device knows when it is asked; never the simulator's truth about others."""

    now_ns: int
    device_kind: str
    memory_bytes: int
    free_memory_bytes: int
    num_layers: int
    prompt_tokens: int
    max_output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How one request is run: layers [0, split) on the device, the rest on the server, `codec` at the cut.

    `codec` is a codec's name, with settings in brackets where they differ from its own: ``ts-tabq(delta=0.05)``.
    """

    split: int
    codec: str
