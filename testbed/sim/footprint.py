"""The method's own memory figures of a scenario, for the summary: M_w and B_kv beside the demand that decides OOM."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.actors.kv import code_bits, kv_laws
from testbed.actors.memory import edge_demand
from testbed.actors.weight_plan import weight_laws
from testbed.core.cast import Footprint
from testbed.models.shape import ModelShape
from testbed.scenarios.schema import Scenario
from testbed.sim.choosing import build_policies
from testbed.sim.measured import BITS
from testbed.sim.requests import RequestTable


def footprints(scenario: Scenario, shape: ModelShape, requests: RequestTable) -> dict[str, Sequence[Footprint]]:
    """Of every group that has requests, at each split its policy may choose and for its longest request."""
    longest = _longest(scenario, requests)
    policies = build_policies(scenario)
    return {
        scenario.fleet[group].name: [
            footprint(scenario, shape, split, tokens) for split in policies[group].splits(shape.num_layers)
        ]
        for group, tokens in longest.items()
    }


def _longest(scenario: Scenario, requests: RequestTable) -> dict[int, int]:
    """By group that has requests: prompt and output of the longest, in tokens."""
    tokens = requests.prompt_tokens + requests.max_output_tokens
    of_group = ((group, tokens[requests.group == group]) for group in range(len(scenario.fleet)))
    return {group: int(found.max()) for group, found in of_group if len(found)}


def footprint(scenario: Scenario, shape: ModelShape, split: int, tokens: int) -> Footprint:
    """At one split, for a sequence of `tokens` tokens, prompt and output together."""
    bits = BITS[scenario.dtype]
    front_weights, back_weights = weight_laws(scenario.weights, bits)
    front_kv, back_kv = kv_laws(scenario.kv, bits)
    behind = back_weights.footprint_bits(shape, shape.num_layers - split)
    return Footprint(
        split=split,
        tokens=tokens,
        footprint_bits=front_weights.footprint_bits(shape, split) + behind,
        state_bits=shape.state_bits(tokens, split, code_bits(front_kv), code_bits(back_kv)),
        edge_bytes=edge_demand(shape, split, tokens, front_weights, front_kv).total_bytes,
    )
