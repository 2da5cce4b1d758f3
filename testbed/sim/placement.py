"""How far servers are from devices, for routers that go by distance."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.network_models.topology.graph import Routes, describe
from testbed.scenarios.cluster import RegionalConfig, RouterConfig
from testbed.scenarios.schema import Group, Scenario, Servers

AWAY_NS = 1  # from one region to any other where no table says more
Member = tuple[Group | Servers, int]  # of a group, and its place in it


def regional(router: RouterConfig) -> RegionalConfig | None:
    """The part of a router that goes by distance: itself, or what it falls back to."""
    if isinstance(router, RegionalConfig):
        return router
    otherwise = getattr(router, "otherwise", None)
    return None if otherwise is None else regional(otherwise)


def goes_by_topology(scenario: Scenario, config: RegionalConfig) -> bool:
    """Without a table and without regions distances are those of the topology."""
    entries: list[Group | Servers] = [*scenario.fleet, *scenario.servers]
    return not config.distances and scenario.topology is not None and all(entry.region is None for entry in entries)


class Distances:
    """In nanoseconds, one way: 0 within a region, else the table's; the topology's propagation delay; or 1 if away."""

    def __init__(self, scenario: Scenario, devices: Sequence[Member], servers: Sequence[Member]) -> None:
        config = regional(scenario.router)
        self._is_used = config is not None
        self._known: dict[tuple[str, str], int] = {}
        self._routes: Routes | None = None
        self._devices: list[str] = []
        self._servers: list[str] = []
        if config is None:
            return
        for pair in config.distances:
            one, other = pair.between
            self._known[one, other] = self._known[other, one] = pair.delay
        if goes_by_topology(scenario, config):
            assert scenario.topology is not None, "it was asked for"
            self._routes = Routes(topology=scenario.topology)
            self._devices, self._servers = (
                [str(scenario.place_of(*each)) for each in all_] for all_ in (devices, servers)
            )
        else:
            self._devices, self._servers = ([str(entry.region) for entry, _ in all_] for all_ in (devices, servers))

    def between_ns(self, device: int, server: int) -> int:
        """0 for every pair where the router does not ask."""
        if not self._is_used:
            return 0
        way = (self._devices[device], self._servers[server])
        if way not in self._known:
            self._known[way] = self._measured_ns(*way)
        return self._known[way]

    def _measured_ns(self, one: str, other: str) -> int:
        if one == other:
            return 0
        return AWAY_NS if self._routes is None else describe(self._routes, one, other).delay_ns
