"""What shard hosts are asked to compute, as plain values that travel between processes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.codecs.agreed import Agreed
from testbed.core.plan import Mode
from testbed.models.sampling_config import SamplingConfig
from testbed.models.source import ModelSource
from testbed.quantization.config import WeightConfig

TOKEN_BYTES = 4  # a token id on the wire


def pack_tokens(tokens: Sequence[int]) -> bytes:
    """Token ids as they travel where nothing runs on the device."""
    return struct.pack(f"<{len(tokens)}I", *tokens)


def unpack_tokens(message: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(message) // TOKEN_BYTES}I", message))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """Everything a host needs to load shards: equal on every host of a run."""

    source: ModelSource
    dtype: str
    sampling: SamplingConfig
    keep_logits: bool  # for AuditCall
    weights: WeightConfig | None = None  # its change point is each shard's own cut
    calibration: tuple[tuple[int, ...], ...] = ()  # token ids, for methods that need text
    saved: Path | None = None  # a folder of packed weights, in place of packing them here
    front_kv_bits: int | None = None  # keys and values of a front, packed; None: in `dtype`
    back_kv_bits: int | None = None
    use_gpu: bool = False  # cloud hosts, where one is at hand
    codecs: tuple[tuple[str, int], ...] | None = None  # (setting, split) that sessions agreed on; None: no session did
    agreed: Mapping[tuple[str, int], Agreed] = field(default_factory=dict)  # for codecs that need it
    seal: str = "none"  # how messages are encrypted
    seal_secret: bytes = b""  # what session keys are derived from
    refuses: bool = False  # a message that can't be read is an answer, `Refused`; else it ends the run


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontCall:
    """Run `tokens` through layers [0, split) of a session and encode the hidden states: the message to send.

    `kv` is what came down for the device to keep in mode ship-kv, a message a pass.
    """

    session: int
    split: int
    codec: str
    tokens: tuple[int, ...]
    mode: Mode = "stateful"
    kv: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeCall:
    """Run `tokens` through the whole model on the device and choose the next token."""

    session: int
    sampling_seed: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackItem:
    """One sequence of a server's batch: its message, or token ids where `split` is 0.

    A pass may come in parts: the first has the message, of which it runs `num_tokens` positions, the others go on with
    what is left of it. A token comes out of the last.
    """

    session: int
    sampling_seed: int
    split: int
    codec: str
    message: bytes | None  # None: what is left of the session's last one
    mode: Mode = "stateful"
    is_sealed: bool = False  # no token that the server goes on with by itself is
    num_tokens: int | None = None  # None: all of the message
    is_last: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """Stands for a sequence's next token where its message could not be read; it took no part in the batch."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackCall:
    """Run one real batch through layers [split, L) and choose each sequence's next token."""

    items: tuple[BackItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseCall:
    """Forget a session, its caches and its logits: it has been audited, or never will be."""

    session: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FillCall:
    """Lengthen a session's cache behind `split` by tokens of no meaning.

    A batch's rounding depends on how long its sessions are, not on what they hold: after a host is lost this stands
    for sessions that have ended, so that those still alive continue bit for bit.
    """

    session: int
    split: int
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCall:
    """Hold a finished session's logits against the unsplit model, fed the same tokens step by step."""

    session: int
    prompt: tuple[int, ...]
    output: tuple[int, ...]


Call = FrontCall | WholeCall | BackCall | CloseCall | AuditCall | FillCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A call's result and the wall time it took: layers, codec and sealing apart."""

    value: Any
    compute_ns: int = 0
    codec_ns: int = 0
    seal_ns: int = 0
    kv: tuple[bytes, ...] = ()  # of a batch's items: keys and values that go down, in mode ship-kv
    spans: tuple[tuple[int, int], ...] = ()  # of a batch's items: the session's tokens before and after it
