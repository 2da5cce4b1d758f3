"""A device's way to each server: one link that leads to all of them, or its link and the network behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import simpy

from testbed.network_models.build import build_ports, connect
from testbed.network_models.ports.packet import Numbers, Path, Port
from testbed.network_models.radio import behind_radio, radio_of
from testbed.network_models.sharing.cell import Seat
from testbed.network_models.topology.network import Network, Transit
from testbed.network_models.transfer import Direction, LinkSnapshot
from testbed.network_models.transports.transport import Access
from testbed.scenarios.profiles import LinkProfile


class Connections(Protocol):
    """What a device sends and receives over."""

    def to(self, server: int) -> Access:
        """The link to this server."""
        ...

    def reaches(self, server: int) -> bool:
        """Whether there is a way to this server and back while nothing is down."""
        ...

    def snapshot(self, direction: Direction) -> LinkSnapshot:
        """The counters of the device's own link, to all servers together."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OneForAll:
    """A link that leads straight to every server."""

    access: Access

    def to(self, server: int) -> Access:
        return self.access

    def reaches(self, server: int) -> bool:
        return True

    def snapshot(self, direction: Direction) -> LinkSnapshot:
        return (self.access.up if direction is Direction.UP else self.access.down).snapshot()


class OneEach:
    """A connection to each server, over the device's own link first and the edges of a topology behind it.

    They share the link's two ports, and count their packets together, so that no two have the same draw.
    """

    def __init__(
        self, env: simpy.Environment, profile: LinkProfile, network: Network, *, node: str, servers: Sequence[str],
        entity: int, seed: int, seat: Seat | None = None,
    ) -> None:  # fmt: skip
        self._env = env
        self._profile = profile
        self._network = network
        self._node = node
        self._servers = servers
        self._entity = entity
        self._ports = build_ports(env, profile, entity=entity, seed=seed, seat=seat)
        self._radio = radio_of(profile)
        self._numbers = {direction: Numbers() for direction in Direction}
        self._connections: dict[int, Access] = {}

    def to(self, server: int) -> Access:
        """Made when it is first asked for."""
        if server not in self._connections:
            up, down = self._up(self._servers[server]), self._down(self._servers[server])
            access = connect(self._env, self._profile, up, down)
            self._connections[server] = behind_radio(self._env, access, self._radio)
        return self._connections[server]

    def reaches(self, server: int) -> bool:
        return self._network.routes.joins(self._node, self._servers[server])

    def _up(self, target: str) -> Path:
        own = (self._ports.up,)
        if target == self._node:
            return self._path(Direction.UP, own)
        transit = Transit(network=self._network, source=self._node, target=target, before=own)
        return self._path(Direction.UP, (*own, transit))

    def _down(self, source: str) -> Path:
        own = (self._ports.down,)
        if source == self._node:
            return self._path(Direction.DOWN, own)
        transit = Transit(network=self._network, source=source, target=self._node, after=own)
        return self._path(Direction.DOWN, (transit, *own))

    def _path(self, direction: Direction, ports: Sequence[Port]) -> Path:
        return Path(ports=ports, entity=self._entity, numbers=self._numbers[direction])

    def snapshot(self, direction: Direction) -> LinkSnapshot:
        """Messages and their bytes of all connections; the queue's own counters from the link's port."""
        port = self._ports.up if direction is Direction.UP else self._ports.down
        usage = port.usage(int(self._env.now))
        links = [each.up if direction is Direction.UP else each.down for each in self._connections.values()]
        return replace(
            _sum([link.snapshot() for link in links]),
            busy_ns=usage.busy_ns,
            backlog_bytes=usage.backlog_bytes,
            peak_backlog_bytes=usage.peak_backlog_bytes,
            dropped_packets=usage.dropped_packets,
        )


def _sum(snapshots: Sequence[LinkSnapshot]) -> LinkSnapshot:
    return LinkSnapshot(
        **{item.name: sum(getattr(snapshot, item.name) for snapshot in snapshots) for item in fields(LinkSnapshot)}
    )
