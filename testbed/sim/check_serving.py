"""What servers can't do for the groups they serve."""

from __future__ import annotations

from testbed.core.errors import ScenarioError
from testbed.scenarios.schema import Scenario


def check_serving(scenario: Scenario) -> None:
    """Raise ScenarioError for what only modelled groups can be served with."""
    if all(group.compute == "modelled" for group in scenario.fleet):
        return
    for index, servers in enumerate(scenario.servers):
        path = f"servers[{index}]"
        if servers.chunk_tokens is not None:
            raise ScenarioError(
                "real shards run a prompt in one piece",
                path=f"{path}.chunk_tokens",
                value=servers.chunk_tokens,
                allowed="null, or modelled groups only",
            )
        cache = servers.kv_cache
        if cache.prefix != "none":
            raise ScenarioError(
                "real shards open a cache of their own for every request",
                path=f"{path}.kv_cache.prefix",
                value=cache.prefix,
                allowed="none, or modelled groups only",
            )
        if cache.reserve == "blocks" and cache.preemption == "recompute":
            raise ScenarioError(
                "real shards keep their caches: positions are not run again",
                path=f"{path}.kv_cache.preemption",
                value=cache.preemption,
                allowed="swap, reserve: full, or modelled groups only",
            )
