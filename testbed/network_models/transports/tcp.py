"""TCP: one connection an access, both directions, kept over all messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from testbed.network_models.framing import Framing
from testbed.network_models.transports.congestion import CONGESTION
from testbed.network_models.transports.connected import Connected, ConnectedConfig
from testbed.network_models.transports.engine import Engine
from testbed.network_models.transports.tcp_end import TcpEnd
from testbed.network_models.transports.tcp_sender import TcpRules
from testbed.scenarios.base import PositiveSizeBytes, PositiveTimeNs, TimeNs


class Tcp(Connected["Tcp.Config"]):
    """A stream of bytes in order, both ways; messages wait for all bytes before them."""

    class Config(ConnectedConfig):
        kind: Literal["tcp"] = "tcp"
        congestion: Literal["cubic", "reno"] = "cubic"
        initial_window: int = Field(default=10, ge=1, le=1000)  # segments (RFC 6928)
        min_rto: PositiveTimeNs = Field(default=200_000_000, validate_default=False)
        initial_rto: PositiveTimeNs = Field(default=1_000_000_000, validate_default=False)  # RFC 6298
        delayed_ack: TimeNs = Field(default=40_000_000, validate_default=False)  # 0: every segment at once
        max_retries: int = Field(default=15, ge=0, le=100)  # time-outs in a row
        receive_window: PositiveSizeBytes | None = None  # None: the receiver takes all
        idle_restart: bool = True  # window back to the initial one after a pause longer than the time-out
        nagle: bool = False

    def _engines(self, framing: Framing) -> Callable[[], Engine]:
        config = self._config
        segment_bytes = framing.mtu_bytes - framing.header_bytes
        rules = TcpRules(
            segment_bytes=segment_bytes,
            min_rto_ns=config.min_rto,
            initial_rto_ns=config.initial_rto,
            max_retries=config.max_retries,
            delayed_ack_ns=config.delayed_ack,
            receive_window_bytes=config.receive_window,
            nagle=config.nagle,
            restart_idle=config.idle_restart,
        )
        law = CONGESTION[config.congestion]
        return lambda: TcpEnd(rules, framing, law(segment_bytes, config.initial_window))
