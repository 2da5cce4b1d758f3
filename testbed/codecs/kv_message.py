"""Keys and values on the wire, as a stateless server gets them and gives them back [our design].

A message like every other, 24 bytes of header and checksum around the body; what stands for d is the bytes of a token's
record in one layer. The records travel as they are stored, layer after layer, token after token.
"""

from __future__ import annotations

import numpy as np

from testbed.codecs.compiling import kernels
from testbed.codecs.framing import (
    CRC_BYTES,
    HEADER_BYTES,
    MAX_HIDDEN_SIZE,
    OVERHEAD_BYTES,
    CodecError,
    Envelope,
    Header,
    U8Array,
    unpack_header,
)

KV_STAGE = 31  # no stage of a codec


def kv_message_bytes(num_tokens: int, token_bytes: int) -> int:
    """Bytes of the message with so many tokens' keys and values, `token_bytes` in all layers; nothing for none."""
    return OVERHEAD_BYTES + num_tokens * token_bytes if num_tokens else 0


def pack_kv(records_LNB: U8Array, envelope: Envelope) -> bytes:
    """The message of N tokens' records of B bytes in L layers; `envelope.position` is the first token's."""
    _, num_tokens, record_bytes = records_LNB.shape
    if record_bytes > MAX_HIDDEN_SIZE:
        raise CodecError(f"a record of {record_bytes} bytes has no room in a message")
    header = Header(
        envelope=envelope,
        num_tokens=num_tokens,
        hidden_size=record_bytes,
        stage=KV_STAGE,
        entropy=0,
        has_sparse=False,
        half_sparse=False,
        tau=0.0,
    )
    body = header.pack() + records_LNB.tobytes()
    return body + kernels().crc32c(np.frombuffer(body, np.uint8), 0).to_bytes(CRC_BYTES, "little")


def unpack_kv(message: bytes, envelope: Envelope, *, num_layers: int, num_tokens: int, record_bytes: int) -> U8Array:
    """The records [L, N, B] of a message for this envelope and of these sizes; CodecError for any other."""
    header = unpack_header(message)
    data = np.frombuffer(message, np.uint8)
    if kernels().crc32c(data[:-CRC_BYTES], 0) != int.from_bytes(message[-CRC_BYTES:], "little"):
        raise CodecError("the checksum is not the message's")
    expected = (KV_STAGE, envelope, num_tokens, record_bytes)
    if (header.stage, header.envelope, header.num_tokens, header.hidden_size) != expected:
        raise CodecError(f"{num_tokens} tokens' keys and values for {envelope} are expected")
    body = data[HEADER_BYTES:-CRC_BYTES]
    if body.size != num_layers * num_tokens * record_bytes:
        raise CodecError(f"keys and values of {body.size} bytes don't fill {num_layers} layers")
    return body.reshape(num_layers, num_tokens, record_bytes)
