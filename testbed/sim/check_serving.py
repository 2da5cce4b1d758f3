"""What servers can't do for the groups they serve."""

from __future__ import annotations

from testbed.core.errors import ScenarioError
from testbed.scenarios.schema import Scenario


def check_serving(scenario: Scenario) -> None:
    """Raise ScenarioError for what only modelled groups can be served with."""
    if all(group.compute == "modelled" for group in scenario.fleet):
        return
    for index, servers in enumerate(scenario.servers):
        if servers.chunk_tokens is not None:
            raise ScenarioError(
                "real shards run a prompt in one piece",
                path=f"servers[{index}].chunk_tokens",
                value=servers.chunk_tokens,
                allowed="null, or modelled groups only",
            )
