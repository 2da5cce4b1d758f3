"""What the two sides of a session agree on at its start, beyond the codec's settings [our design].

None of it travels with the messages. Its digest is where each message's CRC-32C starts, so a message that was made
under another agreement, or under none, is refused like a broken one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from testbed.codecs.compiling import kernels
from testbed.codecs.framing import CodecError, F32Array
from testbed.codecs.tables import NUM_GROUPS, Tables
from testbed.core.registry import CODECS
from testbed.scenarios.codec_setting import MEANS, TABLES, CodecConfig, codec_name, read_setting


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Agreed:
    """`means` [D] are what `centre` subtracts, `tables` are rANS's. `digest` is 0 where nothing is agreed on, and only
    there.
    """

    means: F32Array | None = None
    tables: Tables | None = None

    @property
    def digest(self) -> int:
        """CRC-32C over every part with its name and length."""
        parts = b"" if self.means is None else _part(MEANS, self.means.astype("<f4").tobytes())
        parts += b"" if self.tables is None else _part(TABLES, self.tables.to_bytes())
        return max(1, _crc(parts)) if parts else 0

    def holds(self) -> frozenset[str]:
        """Names of the parts that are there."""
        parts = {MEANS: self.means, TABLES: self.tables}
        return frozenset(name for name, part in parts.items() if part is not None)


NOTHING = Agreed()


class TabledCodec(Protocol):
    """A codec whose entropy coder works with tables."""

    def tables_for(self, hidden_ND: F32Array, num_groups: int) -> Tables: ...


def needs_agreement(setting: str) -> bool:
    """Whether both sides must hold the same `Agreed` before a codec of this setting can work."""
    return bool(read_setting(setting).agreed_parts())


def agree(setting: str, hidden_ND: F32Array) -> Agreed | None:
    """What a session of this setting agrees on, taken from sample rows; None where the setting needs nothing.

    Raises CodecError for samples without a row.
    """
    config = read_setting(setting)
    parts = config.agreed_parts()
    if not parts:
        return None
    if hidden_ND.ndim != 2 or not hidden_ND.size:  # noqa: PLR2004
        raise CodecError(f"an agreement takes samples [n, d], but got {list(hidden_ND.shape)}")
    agreed = Agreed(means=channel_means(hidden_ND) if MEANS in parts else None)
    if TABLES not in parts:
        return agreed
    codec: TabledCodec = CODECS.load(codec_name(setting))(config, agreed)
    return replace(agreed, tables=codec.tables_for(hidden_ND, NUM_GROUPS if config.tables == "channel" else 1))


def check_agreement(config: CodecConfig, agreed: Agreed | None) -> None:
    """Raise CodecError where a part is missing that a codec of this configuration works with."""
    missing = config.agreed_parts() - (agreed or NOTHING).holds()
    if missing:
        raise CodecError(f"a session with {config.kind} has to agree on {', '.join(sorted(missing))} first")


def channel_means(hidden_ND: F32Array) -> F32Array:
    """Mean of each channel over its finite values, summed in float64; 0 for a channel without any."""
    finite_ND = np.isfinite(hidden_ND)
    sums_D = np.where(finite_ND, hidden_ND, 0).sum(axis=0, dtype=np.float64)
    means_D: F32Array = (sums_D / np.maximum(finite_ND.sum(axis=0), 1)).astype(np.float32)
    return means_D


def _part(name: str, data: bytes) -> bytes:
    """A named piece of the canonical bytes under the digest."""
    return struct.pack("<B", len(name)) + name.encode() + struct.pack("<Q", len(data)) + data


def _crc(data: bytes) -> int:
    return kernels().crc32c(np.frombuffer(data, np.uint8), 0)
