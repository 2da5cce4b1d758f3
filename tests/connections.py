"""Connections whose losses a test chooses: a channel's own loss replaced by a list, or by a law of one direction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from testbed.core.registry import TRANSPORTS
from testbed.network_models.channel import build_channel
from testbed.network_models.exercise import Sent, exercise
from testbed.network_models.origin import Origin
from testbed.network_models.ports.fifo import FifoPort
from testbed.network_models.ports.packet import Path
from testbed.network_models.transfer import Direction
from testbed.scenarios.profiles import LinkProfile

US, MS, S = 1_000, 1_000_000, 1_000_000_000
HEADER, SEGMENT = 40, 1460
FIELDS = {
    "name": "by-hand",
    "rate_up": "80 Mbit/s",  # a full packet takes 150 us, a bare header 4 us
    "rate_down": "80 Mbit/s",
    "propagation_delay": "10 ms",
    "queue": "100 MB",
}


@dataclass
class Chosen:
    """Loses what `is_lost_at(number, time_ns)` says, and keeps when each packet's last bit left."""

    is_lost_at: object = None
    left_ns: list[int] = field(default_factory=list)

    def is_lost(self, packet, attempt, time_ns):
        assert (packet, attempt) == (len(self.left_ns), 0), "every transmission has a number of its own"
        self.left_ns.append(time_ns)
        return bool(self.is_lost_at and self.is_lost_at(packet, time_ns))


def numbers(*lost):
    """These transmissions of a direction are lost: 0 is the first packet, of the handshake where there is one."""
    return lambda number, time_ns: number in lost


def connect(env, transport, *, up=None, down=None, seed=1, **changes):
    """A fresh access with the losses `up` and `down`: a Chosen, or None for the profile's own."""
    profile = LinkProfile(**{**FIELDS, "transport": transport, **changes})
    paths = []
    for direction, loss in ((Direction.UP, up), (Direction.DOWN, down)):
        channel = build_channel(profile, Origin(seed=seed, direction=direction, entity=0))
        paths.append(Path(ports=(FifoPort(env, channel if loss is None else replace(channel, loss=loss)),)))
    transport = TRANSPORTS.load(profile.transport.kind)(profile.transport)
    return transport.over_packets(env, channel.framing, *paths)


def run(transport, *messages, **changes):
    """Messages (time_ns, payload_bytes) up the link: their transfers and the account of the up-link."""
    return exercise(lambda env: connect(env, transport, **changes).up, [Sent(*message) for message in messages])
