"""Selective repeat with one timer a round: what of a message is missing is sent again, until all of it is there.

A message is cut into packets, which are handed to the queue back to back: a *round*. Packets that were lost, or dropped
by a full queue, are handed over again `timeout` after the round's last bit left (after the attempt itself, where the
queue took nothing). The message is complete when its last missing packet arrives: last bit out, plus the propagation
delay, plus jitter. After `max_retransmissions` further rounds the sender waits one more time-out and gives up; it also
gives up once the message is older than `patience`. What the queue has taken by then still goes out.

Every packet that arrives is acknowledged by a bare header on a control channel: counted, never lost, taking no time and
no capacity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.clock import Timer
from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import Path
from testbed.network_models.rates.segments import FOREVER
from testbed.network_models.transfer import Fate
from testbed.network_models.transports.arq import ArqConfig
from testbed.network_models.transports.bursts import BurstLink, Flight
from testbed.network_models.transports.packet_repeat import PacketRepeatLink
from testbed.network_models.transports.transport import Access


class SelectiveRepeat:
    """Lost packets are sent again `timeout` after their round's last bit left."""

    class Config(ArqConfig):
        kind: Literal["selective-repeat"] = "selective-repeat"

    def __init__(self, config: Config) -> None:
        self._config = config

    def over_messages(self, env: simpy.Environment, up: Channel, down: Channel) -> Access:
        return Access(*(RepeatLink(env, channel, self._config) for channel in (up, down)))

    def over_packets(self, env: simpy.Environment, framing: Framing, up: Path, down: Path) -> Access:
        return Access(*(self._packet_link(env, framing, path) for path in (up, down)))

    def _packet_link(self, env: simpy.Environment, framing: Framing, path: Path) -> PacketRepeatLink:
        config = self._config
        return PacketRepeatLink(
            env,
            framing,
            path,
            timeout_ns=config.timeout,
            max_retransmissions=config.max_retransmissions,
            patience_ns=config.patience,
        )


class RepeatLink(BurstLink):
    """One direction: rounds of what is missing."""

    __slots__ = ("_config",)

    def __init__(self, env: simpy.Environment, channel: Channel, config: ArqConfig) -> None:
        super().__init__(env, channel)
        self._config = config

    def _launch(self, flight: Flight) -> None:
        first = flight.first_packet
        self._round(flight, range(first, first + flight.num_packets))

    def _round(self, flight: Flight, packets: Sequence[int]) -> None:
        last_packet = flight.first_packet + flight.num_packets - 1
        last_bytes = flight.last_packet_bytes if packets[-1] == last_packet else 0
        burst, missing = self._hand_over(flight, packets, last_bytes)
        self._ack_bytes += (len(packets) - len(missing)) * self.framing.header_bytes
        if flight.attempt == 0:
            flight.first_start_ns, flight.first_end_ns = burst.start_ns, burst.end_ns
        patience_ns = self._config.patience
        deadline_ns = FOREVER if patience_ns is None else flight.sent_ns + patience_ns
        if missing:
            self._await_timeout(flight, burst.end_ns, missing, deadline_ns)
        elif patience_ns is None or self._out_ns(flight, burst.end_ns) <= deadline_ns:
            self._deliver(flight, burst.end_ns)
        else:
            self._settle(flight, deadline_ns, Fate.TIMEOUT)

    def _await_timeout(self, flight: Flight, left_ns: int, missing: list[int], deadline_ns: int) -> None:
        """What is missing is repeated, or the message is given up."""
        config, now_ns = self._config, int(self.env.now)
        timeout_ns = left_ns + config.timeout
        if flight.attempt < config.max_retransmissions and timeout_ns < deadline_ns:
            Timer(self.env, timeout_ns - now_ns, lambda _: self._repeat(flight, missing))
        else:
            self._settle(flight, min(timeout_ns, deadline_ns), Fate.TIMEOUT)

    def _repeat(self, flight: Flight, missing: list[int]) -> None:
        flight.attempt += 1
        flight.not_before_ns = self._last_out_ns
        flight.num_retransmissions += len(missing)
        self._retransmissions += len(missing)
        self._round(flight, missing)
