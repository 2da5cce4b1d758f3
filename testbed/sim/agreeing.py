"""Which sessions of a scenario have to agree on something before their first message."""

from __future__ import annotations

from testbed.codecs.agreed import needs_agreement
from testbed.scenarios.schema import Scenario
from testbed.sim.world import build_policies


def agreeing_pairs(scenario: Scenario, num_layers: int) -> list[tuple[str, int]]:
    """(codec, split) of real groups whose policy names a codec that needs an agreement, at each cut it may choose."""
    pairs = set()
    for group, policy in zip(scenario.fleet, build_policies(scenario), strict=True):
        codec = getattr(scenario.policy_of(group), "codec", None)
        if group.compute == "real" and codec is not None and needs_agreement(codec):
            pairs |= {(codec, split) for split in policy.splits(num_layers) if 0 < split < num_layers}
    return sorted(pairs)
