"""QUIC: one connection an access, both directions; every message is a stream of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import simpy
from pydantic import Field

from testbed.network_models.channel import Channel
from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import Path
from testbed.network_models.transports.congestion import CONGESTION
from testbed.network_models.transports.endpoint import Connection
from testbed.network_models.transports.quic_end import QuicEnd
from testbed.network_models.transports.quic_sender import QuicRules
from testbed.network_models.transports.transport import Access
from testbed.scenarios.base import PositiveTimeNs, TimeNs
from testbed.scenarios.pieces import TransportConfig

# IPv4 20, UDP 8, short header with an 8-byte connection id and a 2-byte packet number 11, authentication tag 16.
_PACKET_BYTES = 55
_STREAM_BYTES = 7  # frame type, stream id, offset, length
_ACK_BYTES = 8  # frame type, largest, delay, count, first range
_INITIAL_BYTES = 28 + 1200  # padded (RFC 9000, section 14.1)


class Quic:
    """Streams over one congestion window; a lost packet holds up only the message it belongs to."""

    class Config(TransportConfig):
        least_mtu_bytes: ClassVar[int] = _INITIAL_BYTES

        kind: Literal["quic"] = "quic"
        congestion: Literal["cubic", "reno"] = "cubic"
        initial_window: int = Field(default=10, ge=1, le=1000)  # packets
        zero_rtt: bool = True  # keys of an earlier connection: the first message need not wait for the handshake
        ack_delay: TimeNs = Field(default=25_000_000, validate_default=False)  # RFC 9000, max_ack_delay
        idle_timeout: PositiveTimeNs = Field(default=30_000_000_000, validate_default=False)
        patience: PositiveTimeNs | None = None  # of a message from being sent to being delivered

        @property
        def needs_packets(self) -> str:
            """Why not `messages`."""
            return "transport quic reacts to each acknowledgement"

    def __init__(self, config: Config) -> None:
        self._config = config

    def over_messages(self, env: simpy.Environment, up: Channel, down: Channel) -> Access:
        raise AssertionError(self._config.needs_packets)

    def over_packets(self, env: simpy.Environment, framing: Framing, up: Path, down: Path) -> Access:
        config = self._config
        framing = replace(framing, header_bytes=_PACKET_BYTES + _STREAM_BYTES)
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
        connection = Connection(
            env,
            framing,
            up,
            down,
            make_engine=lambda: QuicEnd(rules, framing, law(segment_bytes, config.initial_window)),
            patience_ns=config.patience,
        )
        return connection.access()
