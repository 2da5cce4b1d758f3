"""Selective repeat with one timer a round: what of a message is missing is sent again, until all of it is there."""

from __future__ import annotations

from typing import Literal

import simpy
from pydantic import Field

from testbed.network_models.channel import Channel
from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import Path
from testbed.network_models.transports.bursts import BurstLink
from testbed.network_models.transports.packet_repeat import PacketRepeatLink
from testbed.network_models.transports.transport import Access
from testbed.scenarios.base import PositiveTimeNs
from testbed.scenarios.pieces import TransportConfig


class SelectiveRepeat:
    """Lost packets are sent again `timeout` after their round's last bit left; patience ends with the rounds."""

    class Config(TransportConfig):
        kind: Literal["selective-repeat"] = "selective-repeat"
        timeout: PositiveTimeNs = Field(default=200_000_000, validate_default=False)
        max_retransmissions: int = Field(default=10, ge=0, le=1000)

    def __init__(self, config: Config) -> None:
        self._config = config

    def over_messages(self, env: simpy.Environment, up: Channel, down: Channel) -> Access:
        return Access(*(self._link(env, channel) for channel in (up, down)))

    def _link(self, env: simpy.Environment, channel: Channel) -> BurstLink:
        config = self._config
        return BurstLink(env, channel, timeout_ns=config.timeout, max_retransmissions=config.max_retransmissions)

    def over_packets(self, env: simpy.Environment, framing: Framing, up: Path, down: Path) -> Access:
        return Access(*(self._packet_link(env, framing, path) for path in (up, down)))

    def _packet_link(self, env: simpy.Environment, framing: Framing, path: Path) -> PacketRepeatLink:
        config = self._config
        return PacketRepeatLink(
            env, framing, path, timeout_ns=config.timeout, max_retransmissions=config.max_retransmissions
        )
