"""The topology as a graph, and the routes through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import networkx as nx

from testbed.core.errors import ScenarioError, nearest_name
from testbed.scenarios.topology import Edge, Topology, Way

NONE_DOWN: frozenset[Way] = frozenset()

_COSTS: Mapping[str, Callable[[Edge], int]] = MappingProxyType(
    {"delay": lambda edge: edge.propagation_ns, "hops": lambda _: 1, "weight": lambda edge: edge.weight}
)


def build_graph(topology: Topology) -> nx.DiGraph[str]:
    """A node for each node, with its `kind`; an arc for each direction of an edge, with the `edge`."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    for node in topology.nodes:
        graph.add_node(node.name, kind=node.kind)
    for edge in topology.edges:
        for one, other in edge.ways:
            graph.add_edge(one, other, edge=edge)
    return graph


@dataclass(slots=True, kw_only=True)
class Routes:
    """Cheapest routes: among equally cheap ones the one of fewest hops, then the first by its nodes' names.

    So a route depends on nothing but the graph, whatever order its file has. Costs are whole numbers: ns, hops or
    weights, times more than any number of hops, plus one a hop.
    """

    topology: Topology
    graph: nx.DiGraph[str] = field(init=False)
    _costs: dict[tuple[str, frozenset[Way]], dict[str, int]] = field(default_factory=dict)  # of a target, by source

    def __post_init__(self) -> None:
        self.graph = build_graph(self.topology)

    def route(self, source: str, target: str, down: frozenset[Way] = NONE_DOWN) -> tuple[str, ...] | None:
        """The nodes from source to target over arcs that are not `down`; None where there is no way."""
        to_go = self._towards(target, down)
        if source not in to_go:
            return None
        nodes = [source]
        while nodes[-1] != target:
            here = nodes[-1]
            nodes.append(min(
                there for there in self.graph.successors(here)
                if (here, there) not in down and there in to_go
                and to_go[there] + self._cost(self.graph[here][there]["edge"]) == to_go[here]
            ))  # fmt: skip
        return tuple(nodes)

    def joins(self, one: str, other: str) -> bool:
        """Whether there are routes both ways while nothing is down."""
        return one in self._towards(other, NONE_DOWN) and other in self._towards(one, NONE_DOWN)

    def _towards(self, target: str, down: frozenset[Way]) -> dict[str, int]:
        """What the way to `target` costs from every node that has one."""
        key = (target, down)
        if key not in self._costs:
            found: Any = nx.single_source_dijkstra_path_length(
                self.graph.reverse(copy=False), target, weight=self._weigh(down)
            )
            self._costs[key] = found
        return self._costs[key]

    def _weigh(self, down: frozenset[Way]) -> Callable[[str, str, Any], int | None]:
        """Of an arc of the reversed graph; None hides it."""
        return lambda there, here, arc: None if (here, there) in down else self._cost(arc["edge"])

    def _cost(self, edge: Edge) -> int:
        return _COSTS[self.topology.routing](edge) * (len(self.graph) + 1) + 1

    def check(self, path: str, name: str) -> None:
        """Raise ScenarioError for a node that is not there."""
        if name not in self.graph:
            known = self.topology.node_names
            raise ScenarioError("the topology has no such node", path=path, value=name, allowed=known,
                                nearest=nearest_name(name, known))  # fmt: skip

    def edges(self, nodes: tuple[str, ...]) -> list[Edge]:
        """The edges along a route."""
        return [self.graph[one][other]["edge"] for one, other in pairwise(nodes)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A route as a user asks for it."""

    nodes: tuple[str, ...]
    delay_ns: int  # propagation alone
    bottleneck_bps: int | None  # the lowest rate on the way; None without an edge, or where rates vary
    weight: int

    @property
    def hops(self) -> int:
        return len(self.nodes) - 1


def describe(routes: Routes, source: str, target: str) -> Described:
    """The route between two nodes.

    Raises ScenarioError for a node that is not there, or a route that does not exist.
    """
    routes.check("from", source)
    routes.check("to", target)
    nodes = routes.route(source, target)
    if nodes is None:
        reached = sorted(set(nx.descendants(routes.graph, source)))
        raise ScenarioError(f"there is no route from {source} to {target}", path="to", value=target,
                            allowed=reached or "nothing: no edge leaves the node")  # fmt: skip
    edges = routes.edges(nodes)
    rates = [getattr(edge.rate, "rate", None) for edge in edges]
    known_rates = [rate for rate in rates if rate is not None]
    return Described(
        nodes=nodes,
        delay_ns=sum(edge.propagation_ns for edge in edges),
        bottleneck_bps=min(known_rates) if known_rates and len(known_rates) == len(rates) else None,
        weight=sum(edge.weight for edge in edges),
    )
