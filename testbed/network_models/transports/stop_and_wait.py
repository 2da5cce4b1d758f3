"""Stop-and-wait: one packet in flight a direction, the next when the one before is acknowledged.

Messages go in the order of sending, packet by packet. The acknowledgement is a bare header on a control channel: sent
when the packet arrives, counted, never lost, taking no capacity; it is there after the propagation delay of the other
direction, without jitter. A packet that was lost is handed over again `timeout` after its last bit left; one whose
acknowledgement is merely late is not. The message is complete when its last packet arrives.

Its sender gives a message up when the time-out of a packet's last repeat ends, and once the message is older than
`patience`. What was handed to the queue by then still goes out, and the next message waits for that.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import Path
from testbed.network_models.transports.arq import ArqConfig
from testbed.network_models.transports.paced import PacedLink
from testbed.network_models.transports.packet_paced import PacketPacedLink
from testbed.network_models.transports.transport import Access


class StopAndWait:
    """A packet a round trip."""

    class Config(ArqConfig):
        looks_ahead: ClassVar[bool] = True
        kind: Literal["stop-and-wait"] = "stop-and-wait"

    def __init__(self, config: Config) -> None:
        self._config = config

    def over_messages(self, env: simpy.Environment, up: Channel, down: Channel) -> Access:
        return Access(
            PacedLink(env, up, self._config, return_ns=down.propagation_ns),
            PacedLink(env, down, self._config, return_ns=up.propagation_ns),
        )

    def over_packets(self, env: simpy.Environment, framing: Framing, up: Path, down: Path) -> Access:
        return Access(self._packet_link(env, framing, up, down), self._packet_link(env, framing, down, up))

    def _packet_link(self, env: simpy.Environment, framing: Framing, path: Path, reverse: Path) -> PacketPacedLink:
        config = self._config
        return PacketPacedLink(
            env,
            framing,
            path,
            reverse=reverse,
            timeout_ns=config.timeout,
            max_retransmissions=config.max_retransmissions,
            patience_ns=config.patience,
        )
