"""Where the nodes of a topology stand in a drawing: the same for the same graph, whatever order its file has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from testbed.scenarios.topology import Topology

FloatArray = npt.NDArray[np.float64]
Place = tuple[float, float]
_TINY = 1e-9
_FEW = 90  # nodes that forces between all pairs are worked out for


def place_nodes(topology: Topology, width: float, height: float) -> Mapping[str, Place]:
    """Of every node, within a frame: distances in the drawing follow the number of hops; the long side lies flat."""
    graph: nx.Graph[str] = nx.Graph()
    graph.add_nodes_from(topology.node_names)
    graph.add_edges_from(sorted((min(edge.between), max(edge.between)) for edge in topology.edges))
    found = _by_hops(graph) if len(graph) <= _FEW else nx.spring_layout(graph, seed=1)
    names = sorted(found)
    spots_NX = _flat(np.array([found[name] for name in names], dtype=float))
    low, extent = spots_NX.min(axis=0), np.ptp(spots_NX, axis=0)
    scale = np.array([width, height]) / np.where(extent > 0, extent, 1)
    placed_NX = np.where(extent > 0, (spots_NX - low) * scale, np.array([width, height]) / 2)
    return {name: (round(float(x), 1), round(float(y), 1)) for name, (x, y) in zip(names, placed_NX, strict=True)}


def _by_hops(graph: nx.Graph[str]) -> Any:
    """Kamada and Kawai's springs, as long as ways have hops; apart where there is no way."""
    hops = {one: dict(found) for one, found in nx.all_pairs_shortest_path_length(graph)}
    most = max((number for found in hops.values() for number in found.values()), default=0)
    apart = {one: {other: hops[one].get(other, most + 2) for other in graph} for one in graph}
    return nx.kamada_kawai_layout(graph, dist=apart, pos=nx.circular_layout(graph))


def _flat(spots_NX: FloatArray) -> FloatArray:
    """Turned so that the direction of most spread is horizontal, and the first node is on the left."""
    centred_NX = spots_NX - spots_NX.mean(axis=0)
    (a, b), (_, d) = centred_NX.T @ centred_NX
    angle = 0.5 * math.atan2(2 * b, a - d)
    turn_XX = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turned_NX: FloatArray = centred_NX @ turn_XX
    turned_NX *= np.where(turned_NX[0] > _TINY, -1.0, 1.0)
    return turned_NX
