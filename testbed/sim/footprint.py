"""The method's own memory figures of a scenario, for the summary: M_w and B_kv beside the demand that decides OOM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from testbed.actors.kv import code_bits, kv_laws
from testbed.actors.memory import edge_demand
from testbed.actors.weight_plan import weight_laws
from testbed.core.cast import Footprint
from testbed.models.shape import ModelShape
from testbed.scenarios.schema import Scenario
from testbed.sim.choosing import build_policies
from testbed.sim.requests import Request
from testbed.sim.world import BITS


def footprints(scenario: Scenario, shape: ModelShape, requests: Iterable[Request]) -> dict[str, Sequence[Footprint]]:
    """Of every group that has requests, at each split its policy may choose and for its longest request."""
    longest: dict[int, int] = {}
    for request in requests:
        tokens = request.num_prompt_tokens + request.max_output_tokens
        longest[request.group] = max(tokens, longest.get(request.group, 0))
    policies = build_policies(scenario)
    return {
        scenario.fleet[group].name: [
            footprint(scenario, shape, split, tokens) for split in policies[group].splits(shape.num_layers)
        ]
        for group, tokens in sorted(longest.items())
    }


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
