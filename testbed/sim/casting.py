"""Who takes part, by id: the members of the scenario's groups in their order."""

from __future__ import annotations

from testbed.core.cast import Cast, DeviceEntry, ServerEntry
from testbed.scenarios.schema import Group, Scenario, Servers


def device_members(scenario: Scenario) -> list[tuple[Group, int]]:
    """Every group with each place in it: the index is the device's id."""
    return [(group, place) for group in scenario.fleet for place in range(group.count)]


def server_members(scenario: Scenario) -> list[tuple[Servers, int]]:
    """Every group with each of its workers' places, those that only an autoscaler starts too: the index is the id."""
    return [(group, place) for group in scenario.servers for place in range(group.num_workers)]


def cast_of(scenario: Scenario) -> Cast:
    """Everyone, for the results."""
    return Cast(
        devices=[
            DeviceEntry(device=number, group=group.name, kind=group.device.name, real=group.compute == "real")
            for number, (group, _) in enumerate(device_members(scenario))
        ],
        servers=[
            ServerEntry(server=number, group=group.name, kind=group.server.name)
            for number, (group, _) in enumerate(server_members(scenario))
        ],
    )
