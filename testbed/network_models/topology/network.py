"""The shared part of every path: edges with a port at either end, and routes that follow failures and repairs.

Store and forward: a node sends a packet on when its last bit is there. A packet keeps the route it set out on. A failed
edge loses what is on it and what leaves onto it; the queues before it go on draining.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import simpy

from testbed.core.cast import EdgeEnd
from testbed.network_models.ports.packet import OneByOne, Packet, Port, PortUsage
from testbed.network_models.rates.segments import FOREVER
from testbed.network_models.topology.edge_port import EdgePort
from testbed.network_models.topology.failures import edge_failures
from testbed.network_models.topology.graph import NONE_DOWN, Routes
from testbed.scenarios.topology import Topology, Way

_NO_USAGE = PortUsage(0, 0, 0, 0)


class Network:
    """A topology at work. `seed` keys its draws."""

    def __init__(self, env: simpy.Environment, topology: Topology, *, seed: int) -> None:
        self._env = env
        self._topology = topology
        self._seed = seed
        self.routes = Routes(topology=topology)
        self._ports: dict[Way, EdgePort] = {}
        failing = [edge for edge in topology.edges if edge.down or edge.failures]
        self._failures = {
            way: failures for edge in failing for failures in [edge_failures(edge, seed)] for way in edge.ways
        }
        self._down = NONE_DOWN
        self._down_until_ns = 0  # of the routes' view, which lags by `reroute_after`
        self._chosen: dict[tuple[str, str, frozenset[Way]], tuple[EdgePort, ...] | None] = {}
        self.unrouted_packets = 0  # that came to their first node when there was no way on

    @property
    def now_ns(self) -> int:
        return int(self._env.now)

    def ports(self, source: str, target: str) -> tuple[EdgePort, ...] | None:
        """The ports along the present route; None where there is none."""
        key = (source, target, self._down_now())
        if key not in self._chosen:
            nodes = self.routes.route(*key)
            self._chosen[key] = None if nodes is None else tuple(map(self._port, nodes, nodes[1:]))
        return self._chosen[key]

    def _down_now(self) -> frozenset[Way]:
        """What routes avoid now."""
        if not self._failures:
            return NONE_DOWN
        seen_ns = self.now_ns - self._topology.reroute_after
        if seen_ns >= self._down_until_ns:
            self._down = frozenset(way for way, failures in self._failures.items() if failures.is_down(seen_ns))
            self._down_until_ns = min(
                (failures.next_change_ns(seen_ns) for failures in self._failures.values()), default=FOREVER
            )
        return self._down

    def _port(self, one: str, other: str) -> EdgePort:
        way = (one, other)
        if way not in self._ports:
            edge = self.routes.graph[one][other]["edge"]
            self._ports[way] = EdgePort(self._env, edge, way, failures=self._failures.get(way), seed=self._seed)
        return self._ports[way]

    def edge_ends(self) -> list[EdgeEnd]:
        """The account of every direction of every edge, in the order of names; nothing passed those without a port."""
        return [self._port(*way).end(self.now_ns) for way in sorted(self.routes.graph.edges)]


@dataclass(slots=True, kw_only=True, eq=False)
class Transit(OneByOne):
    """Stands in a path for the edges between two nodes: a packet that comes to it is sent along the present route."""

    network: Network
    source: str
    target: str
    before: Sequence[Port] = ()
    after: Sequence[Port] = ()
    _whole: dict[tuple[EdgePort, ...], tuple[Port, ...]] = field(default_factory=dict)

    def offer(self, packet: Packet) -> None:
        """From here on the packet's ports are those of the route."""
        route = self.network.ports(self.source, self.target)
        if route is None:
            self.network.unrouted_packets += 1
            packet.refused(self.network.now_ns)
            return
        if route not in self._whole:
            inner = [port for edge in route for port in edge.stages]
            self._whole[route] = (*self.before, *inner, *self.after)
        packet.ports = self._whole[route]
        packet.ports[packet.hop].offer(packet)

    @property
    def propagation_ns(self) -> int:
        """Along the present route."""
        route = self.network.ports(self.source, self.target) or ()
        return sum(port.propagation_ns for edge in route for port in edge.stages)

    def usage(self, now_ns: int) -> PortUsage:
        """It holds nothing."""
        return _NO_USAGE
