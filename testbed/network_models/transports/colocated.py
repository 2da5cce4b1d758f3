"""No network at all: both ends are one machine, or what lies between them is not the question."""

from __future__ import annotations

from typing import Literal

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import Path, PortUsage
from testbed.network_models.transfer import Fate, LinkSnapshot, Transfer
from testbed.network_models.transports.account import LinkAccount
from testbed.network_models.transports.transport import Access
from testbed.scenarios.pieces import TransportConfig

_IDLE = PortUsage(busy_ns=0, backlog_bytes=0, peak_backlog_bytes=0, dropped_packets=0)


class Colocated:
    """Every message is there at the instant of its sending; rate, delay and loss of the link have no part in it."""

    class Config(TransportConfig):
        kind: Literal["colocated"] = "colocated"

    def __init__(self, config: Config) -> None:
        pass

    def over_messages(self, env: simpy.Environment, up: Channel, down: Channel) -> Access:
        return Access(ColocatedLink(env), ColocatedLink(env))

    def over_packets(self, env: simpy.Environment, framing: Framing, up: Path, down: Path) -> Access:
        return Access(ColocatedLink(env), ColocatedLink(env))


class ColocatedLink(LinkAccount):
    """One direction: messages and their bytes are counted, no packet is made."""

    __slots__ = ("_env",)

    def __init__(self, env: simpy.Environment) -> None:
        super().__init__()
        self._env = env

    def send(self, payload_bytes: int) -> simpy.Event:
        """Hand over one message now; the event succeeds with its `Transfer` at this instant."""
        self._count_message(payload_bytes)
        now_ns = int(self._env.now)
        done = self._env.event()
        assert done.callbacks is not None, "nobody has seen it yet"
        done.callbacks.append(self.count_end)
        done.succeed(Transfer(now_ns, now_ns, payload_bytes, 0, 0, 0, Fate.DELIVERED, 0, 0, 0, 0, 0))
        return done

    def snapshot(self) -> LinkSnapshot:
        """The counters now; changes nothing."""
        return self._counted(_IDLE)
