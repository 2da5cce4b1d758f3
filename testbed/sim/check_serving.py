"""What servers can't do for the groups they serve."""

from __future__ import annotations

from testbed.core.errors import ScenarioError
from testbed.scenarios.schema import Scenario


def check_serving(scenario: Scenario) -> None:
    """Raise ScenarioError for what only modelled groups can be served with."""
    real = [group for group in scenario.fleet if group.compute == "real"]
    if not real:
        return
    forgetful = [group.name for group in real if getattr(scenario.policy_of(group), "mode", "stateful") != "stateful"]
    for index, servers in enumerate(scenario.servers):
        path = f"servers[{index}]"
        if servers.chunk_tokens is not None and forgetful:
            raise ScenarioError(
                "a real server that forgets a session after every pass runs the pass in one piece",
                path=f"{path}.chunk_tokens",
                value=servers.chunk_tokens,
                allowed=f"null, or mode stateful for group {forgetful[0]}",
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
