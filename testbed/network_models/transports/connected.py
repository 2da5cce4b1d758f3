"""Transports that keep a connection over all messages, one an access and for both directions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

import simpy

from testbed.network_models.channel import Channel
from testbed.network_models.framing import Framing
from testbed.network_models.ports.packet import Path
from testbed.network_models.transports.endpoint import Connection
from testbed.network_models.transports.engine import Engine
from testbed.network_models.transports.transport import Access
from testbed.scenarios.base import PositiveTimeNs
from testbed.scenarios.pieces import TransportConfig


class ConnectedConfig(TransportConfig):
    """What such transports share."""

    patience: PositiveTimeNs | None = None  # of a message from being sent to being delivered

    @property
    def needs_packets(self) -> str:
        """Why not `messages`."""
        return f"transport {self.kind} reacts to each acknowledgement"


C = TypeVar("C", bound=ConnectedConfig)


class Connected(ABC, Generic[C]):
    """A transport says how it frames its segments, and makes the engine of an end."""

    def __init__(self, config: C) -> None:
        self._config = config

    def over_messages(self, env: simpy.Environment, up: Channel, down: Channel) -> Access:
        raise AssertionError(self._config.needs_packets)

    def over_packets(self, env: simpy.Environment, framing: Framing, up: Path, down: Path) -> Access:
        framing = self._framed(framing)
        make_engine, patience_ns = self._engines(framing), self._config.patience
        return Connection(env, framing, up, down, make_engine=make_engine, patience_ns=patience_ns).access()

    def _framed(self, framing: Framing) -> Framing:
        """How segments are framed on a link with this framing."""
        return framing

    @abstractmethod
    def _engines(self, framing: Framing) -> Callable[[], Engine]:
        """Makes an end's engine, whenever a connection is opened."""
