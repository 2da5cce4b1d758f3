"""What a policy may know and what it decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["stateful", "ship-kv", "recompute"]  # what the server keeps of a session between passes


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
    mode: Mode = "stateful"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageObservation:
    """What the device knows before it encodes its next message of hidden states. `step` 0 is the prefill."""

    now_ns: int
    step: int
    split: int
    num_layers: int
    num_tokens: int  # in this message
    past_tokens: int  # of the session, before it
    codec: str  # of the message before; at step 0 what was decided at admission
    bytes_sent: int  # by this session so far, as handed to the link
    last_message_bytes: int  # 0 before the first
    last_send_ns: int  # from handing that message to the link to its arrival

    @property
    def goodput_bps(self) -> float | None:
        """Of the message before, in bits a second with queueing, repeats and propagation; None before the first."""
        return 8e9 * self.last_message_bytes / self.last_send_ns if self.last_send_ns else None
