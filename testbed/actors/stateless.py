"""Messages for a server that keeps nothing between passes: what a device puts into them, and how they come apart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from testbed.actors.calls import BackItem, FrontCall, HostSpec
from testbed.actors.kv import KVLaw, kv_bytes
from testbed.actors.modes import MODE_IDS
from testbed.codecs.framing import CodecError, Envelope, unpack_header
from testbed.codecs.kv_message import kv_message_bytes, pack_kv, unpack_kv
from testbed.models.kv_format import KVFormat

Hidden = npt.NDArray[np.float32]
Records = npt.NDArray[np.uint8]
_DTYPE_BITS = {"float32": 32, "bfloat16": 16, "float16": 16}


class Arrived(NamedTuple):
    """A message taken apart: hidden states, whose they are, and the records [layers, N, bytes] that came with them."""

    hidden: bytes
    envelope: Envelope
    records: Records | None


class StatelessMessages:
    """Devices keep the hidden states of their sessions in mode recompute; nothing else is kept here."""

    def __init__(self, spec: HostSpec) -> None:
        self._shape = spec.source.shape
        law: KVLaw = _DTYPE_BITS[spec.dtype] if spec.back_kv_bits is None else KVFormat(bits=spec.back_kv_bits)
        self._record_bytes = kv_bytes(self._shape, 1, 0, 1, law)
        self._hidden: dict[int, list[Hidden]] = {}

    def outgoing(self, call: FrontCall, hidden_ND: Hidden, position: int) -> tuple[Hidden, Envelope]:
        """The hidden states to send for a pass that began at `position`, and their envelope."""
        if call.mode == "recompute":
            kept = self._hidden.setdefault(call.session, [])
            kept.append(hidden_ND)
            hidden_ND, position = np.concatenate(kept), 0
        return hidden_ND, Envelope(call.session, position, call.split, MODE_IDS[call.mode])

    def with_kv(self, message: bytes, call: FrontCall, envelope: Envelope) -> bytes:
        """The message with the keys and values of all earlier passes behind it, in mode ship-kv."""
        if not call.kv:
            return message
        parts, past = [], 0
        for kv in call.kv:
            parts.append(self._records(kv, envelope._replace(position=past), unpack_header(kv).num_tokens))
            past += parts[-1].shape[1]
        return message + pack_kv(np.concatenate(parts, axis=1), envelope._replace(position=0))

    def arrived(self, item: BackItem, message: bytes, length: int) -> Arrived:
        """A message, in the clear, at a server whose session has `length` tokens. Raises CodecError for a bad one."""
        envelope = Envelope(item.session, length, item.split, MODE_IDS[item.mode])
        if item.mode != "ship-kv":
            return Arrived(message, envelope, None)
        past = unpack_header(message).envelope.position
        envelope = envelope._replace(position=past)
        size = kv_message_bytes(past, self._num_layers(item.split) * self._record_bytes)
        if size >= len(message):
            raise CodecError(f"a message without the keys and values of the {past} tokens before it")
        if not size:
            return Arrived(message, envelope, None)
        records_LNB = self._records(message[-size:], envelope._replace(position=0), past)
        return Arrived(message[:-size], envelope, records_LNB)

    def answer(self, item: BackItem, records_LNB: Records, position: int) -> bytes:
        """The keys and values of a pass as they go down."""
        return pack_kv(records_LNB, Envelope(item.session, position, item.split, MODE_IDS[item.mode]))

    def forget(self, session: int) -> None:
        """The session has ended."""
        self._hidden.pop(session, None)

    def _records(self, message: bytes, envelope: Envelope, num_tokens: int) -> Records:
        return unpack_kv(
            message,
            envelope,
            num_layers=self._num_layers(envelope.split),
            num_tokens=num_tokens,
            record_bytes=self._record_bytes,
        )

    def _num_layers(self, split: int) -> int:
        return self._shape.num_layers - split
