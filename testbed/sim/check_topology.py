"""What of a topology can be known to be impossible before anything runs."""

from __future__ import annotations

from testbed.core.errors import ScenarioError
from testbed.network_models.topology.edge_port import check_edge
from testbed.network_models.topology.graph import Routes
from testbed.scenarios.schema import Group, Scenario, Servers, places


def check_topology(scenario: Scenario) -> None:
    """Raise ScenarioError for a device or server that nobody can reach, and a link that can't lead into a network."""
    if scenario.topology is None or not scenario.servers:
        return
    for index, edge in enumerate(scenario.topology.edges):
        try:
            check_edge(edge)
        except ScenarioError as error:
            raise error.below(f"topology.edges[{index}]") from None
    routes = Routes(topology=scenario.topology)
    device_nodes = {node for group in scenario.fleet for node in _nodes(scenario, group)}
    server_nodes = {node for servers in scenario.servers for node in _nodes(scenario, servers)}
    for index, group in enumerate(scenario.fleet):
        for node in _nodes(scenario, group):
            if not any(routes.joins(node, server) for server in server_nodes):
                raise ScenarioError(
                    "there is no way from this node to any server and back", path=f"fleet[{index}].at", value=node,
                    allowed=f"a node with a way to {', '.join(sorted(server_nodes))}",
                )  # fmt: skip
        _check_resolution(index, group, set(_nodes(scenario, group)), server_nodes)
    for index, servers in enumerate(scenario.servers):
        for node in _nodes(scenario, servers):
            if not any(routes.joins(device, node) for device in device_nodes):
                raise ScenarioError(
                    "there is no way from any device to this node and back", path=f"servers[{index}].at", value=node,
                    allowed=f"a node with a way to {', '.join(sorted(device_nodes))}",
                )  # fmt: skip


def _nodes(scenario: Scenario, entry: Group | Servers) -> list[str]:
    """Where the members stand; fewer members than nodes leave some out."""
    assert scenario.topology is not None
    assert entry.at is not None, "checked when the scenario was read"
    num_members = entry.num_workers if isinstance(entry, Servers) else entry.count
    return sorted(set(places(entry.at, scenario.topology)[:num_members]))


def _check_resolution(index: int, group: Group, nodes: set[str], server_nodes: set[str]) -> None:
    if group.link.resolution == "messages" and not nodes == server_nodes == {min(nodes)}:
        raise ScenarioError(
            "this link can't be computed by messages: behind it lie edges where packets of several devices meet",
            path=f"fleet[{index}].link.resolution", value="messages", allowed="packets, auto",
        )  # fmt: skip
