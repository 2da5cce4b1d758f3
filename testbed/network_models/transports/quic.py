"""QUIC: one connection an access, both directions; every message is a stream of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from testbed.network_models.framing import Framing
from testbed.network_models.transports.congestion import CONGESTION
from testbed.network_models.transports.connected import Connected, ConnectedConfig
from testbed.network_models.transports.engine import Engine
from testbed.network_models.transports.quic_end import QuicEnd
from testbed.network_models.transports.quic_sender import QuicRules
from testbed.scenarios.base import PositiveTimeNs, TimeNs

# IPv4 20, UDP 8, short header with an 8-byte connection id and a 2-byte packet number 11, authentication tag 16.
_PACKET_BYTES = 55
_STREAM_BYTES = 7  # frame type, stream id, offset, length
_ACK_BYTES = 8  # frame type, largest, delay, count, first range
_INITIAL_BYTES = 28 + 1200  # padded (RFC 9000, section 14.1)


class Quic(Connected["Quic.Config"]):
    """Streams over one congestion window; a lost packet holds up only the message it belongs to."""

    class Config(ConnectedConfig):
        least_mtu_bytes: ClassVar[int] = _INITIAL_BYTES

        kind: Literal["quic"] = "quic"
        congestion: Literal["cubic", "reno"] = "cubic"
        initial_window: int = Field(default=10, ge=1, le=1000)  # packets
        zero_rtt: bool = True  # keys of an earlier connection: the first message need not wait for the handshake
        ack_delay: TimeNs = Field(default=25_000_000, validate_default=False)  # RFC 9000, max_ack_delay
        idle_timeout: PositiveTimeNs = Field(default=30_000_000_000, validate_default=False)

    def _framed(self, framing: Framing) -> Framing:
        return replace(framing, header_bytes=_PACKET_BYTES + _STREAM_BYTES)

    def _engines(self, framing: Framing) -> Callable[[], Engine]:
        config = self._config
        segment_bytes = framing.mtu_bytes - framing.header_bytes
        rules = QuicRules(
            segment_bytes=segment_bytes,
            initial_bytes=_INITIAL_BYTES,
            ack_bytes=_PACKET_BYTES + _ACK_BYTES,
            zero_rtt=config.zero_rtt,
            ack_delay_ns=config.ack_delay,
            idle_timeout_ns=config.idle_timeout,
        )
        law = CONGESTION[config.congestion]
        return lambda: QuicEnd(rules, framing, law(segment_bytes, config.initial_window))
