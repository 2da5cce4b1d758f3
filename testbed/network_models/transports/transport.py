"""What a transport is: the ends of a link, at one of two resolutions.

`messages`: what becomes of a message is computed in closed form, a burst at a time. `packets`: every packet is an event
and passes through ports. Both read the same channel, so where a transport offers both they give the same answer.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import Path
from testbed.network_models.transfer import Link
from testbed.scenarios.pieces import TransportConfig


class Access(NamedTuple):
    """A device's link, both directions: a transport may couple them, by its acknowledgements."""

    up: Link
    down: Link


class Transport(Protocol):
    """A registry row's class; `Config` is its configuration. One object serves one link."""

    Config: type[TransportConfig]

    def over_messages(self, env: simpy.Environment, up: Channel, down: Channel) -> Access:
        """At resolution `messages`; never asked for where the configuration's `needs_packets` gives a reason."""
        ...

    def over_packets(self, env: simpy.Environment, framing: Framing, up: Path, down: Path) -> Access:
        """At resolution `packets`."""
        ...
