"""What of routing, scaling and failures can be known to be impossible before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from testbed.core.errors import ScenarioError, nearest_name
from testbed.scenarios.cluster import RegionalConfig
from testbed.scenarios.schema import Group, Scenario, Servers
from testbed.sim.placement import goes_by_topology, regional


def check_cluster(scenario: Scenario) -> None:
    """Raise ScenarioError for distances that are not known, an autoscaler without its measure, failures of what is
    real.
    """
    config = regional(scenario.router)
    if config is not None and not goes_by_topology(scenario, config):
        path = "router" if config is scenario.router else "router.otherwise"
        _check_regions(scenario, config.kind)
        _check_distances(scenario, config, path)
    has_real = any(group.compute == "real" for group in scenario.fleet)
    for index, servers in enumerate(scenario.servers):
        scale = servers.autoscale
        if scale is not None and scale.signal == "slo" and scenario.slo is None:
            raise ScenarioError(
                "without an slo nobody can miss it",
                path=f"servers[{index}].autoscale.signal",
                value="slo",
                allowed="an slo beside the servers, or queue, utilisation",
            )
        if has_real and servers.can_fail:
            key = "failures" if servers.failures is not None else "down"
            raise ScenarioError(
                "servers of real groups don't fail: their sessions can't begin anew",
                path=f"servers[{index}].{key}",
                allowed="modelled groups only",
            )


def _check_regions(scenario: Scenario, kind: str) -> None:
    sections: dict[str, Sequence[Group | Servers]] = {"fleet": scenario.fleet, "servers": scenario.servers}
    for section, entries in sections.items():
        for index, entry in enumerate(entries):
            if entry.region is None:
                where = "everywhere" if scenario.topology is None else "everywhere, or nowhere: the topology's delays"
                raise ScenarioError(
                    f"router {kind} goes by distance, and this has no region",
                    path=f"{section}[{index}].region",
                    allowed=f"a region {where}",
                )


def _check_distances(scenario: Scenario, config: RegionalConfig, path: str) -> None:
    if not config.distances:
        return
    entries: list[Group | Servers] = [*scenario.fleet, *scenario.servers]
    known = sorted({str(entry.region) for entry in entries})
    for index, pair in enumerate(config.distances):
        for place, region in enumerate(pair.between):
            if region not in known:
                raise ScenarioError(
                    "nobody is in this region",
                    path=f"{path}.distances[{index}].between[{place}]",
                    value=region,
                    allowed=known,
                    nearest=nearest_name(region, known),
                )
    told = {frozenset(pair.between) for pair in config.distances}
    for one, other in _ways(scenario):
        if frozenset((one, other)) not in told:
            raise ScenarioError(
                f"no distance between {one} and {other}", path=f"{path}.distances", allowed="an entry for every pair"
            )


def _ways(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Pairs of different regions with devices in the first and servers in the second, by name."""
    devices = sorted({str(group.region) for group in scenario.fleet})
    servers = sorted({str(group.region) for group in scenario.servers})
    return ((one, other) for one in devices for other in servers if one != other)
