"""How long a pass takes: the roofline of testbed.actors.costs, number for number."""

from __future__ import annotations

from testbed.sim.cohort.arithmetic import ceil_ns
from testbed.sim.cohort.compiling import compiled
from testbed.sim.cohort.state import (
    BANDWIDTH,
    COMPUTE,
    EMBEDDING_BYTES,
    HEAD_BYTES,
    HEAD_NS,
    HEAD_ROW_BYTES,
    HEAD_ROW_FLOPS,
    KV_BYTES,
    LAYER,
    LAYER_BYTES,
    NUM_LAYERS,
    OVERHEAD_NS,
    PAIR_FLOPS,
    PAIRS,
    POSITIONS,
    SPLIT_LAYER,
    TOKEN_BYTES,
    TOKEN_FLOPS,
    TOKENS,
    ZERO,
    I64Array,
)


@compiled
def layer_ns(costs: I64Array, row: int, tokens: int, positions: int, pairs: int) -> int:
    """One decoder layer over a batch's new tokens, KV positions moved and pairs attended."""
    moved = costs[row, LAYER_BYTES] + positions * costs[row, KV_BYTES] + tokens * costs[row, TOKEN_BYTES]
    flops = tokens * costs[row, TOKEN_FLOPS] + pairs * costs[row, PAIR_FLOPS]
    moving_ns = ceil_ns(moved, costs[row, BANDWIDTH])
    return costs[row, OVERHEAD_NS] + max(moving_ns, ceil_ns(flops, costs[row, COMPUTE]))


@compiled
def embedding_ns(costs: I64Array, row: int, tokens: int) -> int:
    return ceil_ns(tokens * costs[row, EMBEDDING_BYTES], costs[row, BANDWIDTH])


@compiled
def head_ns(costs: I64Array, row: int, num_rows: int) -> int:
    moved = costs[row, HEAD_BYTES] + num_rows * costs[row, HEAD_ROW_BYTES]
    moving_ns = ceil_ns(moved, costs[row, BANDWIDTH])
    flops = num_rows * costs[row, HEAD_ROW_FLOPS]
    return max(moving_ns, ceil_ns(flops, costs[row, COMPUTE]))


@compiled
def front_ns(groups: I64Array, group: int, new: int, past: int) -> int:
    """One sequence through the layers of a device."""
    one = layer_ns(groups, group, new, past + 2 * new, new * past + new * (new + 1) // 2)
    num_layers = groups[group, SPLIT_LAYER]
    total = groups[group, OVERHEAD_NS] + embedding_ns(groups, group, new) + num_layers * one
    return total + groups[group, HEAD_NS] if num_layers == groups[group, NUM_LAYERS] else total


@compiled
def coding_ns(costs: I64Array, row: int, work: int) -> int:
    """One launch of a codec; `work` is bytes times passes in percent."""
    rate = 100 * costs[row, BANDWIDTH]
    return costs[row, OVERHEAD_NS] + ceil_ns(work, rate)


@compiled
def back_ns(costs: I64Array, row: int, splits: I64Array, num_layers: int, num_rows: int) -> int:
    """A batch through the layers behind its cuts; `splits` hold what it adds up to."""
    tokens = positions = pairs = total = ZERO
    for place in range(len(splits)):
        tokens += splits[place, TOKENS]
        positions += splits[place, POSITIONS]
        pairs += splits[place, PAIRS]
        stop = splits[place + 1, LAYER] if place + 1 < len(splits) else num_layers
        if tokens:
            total += (stop - splits[place, LAYER]) * layer_ns(costs, row, tokens, positions, pairs)
    num_embedded = splits[0, TOKENS] if splits[0, LAYER] == 0 else ZERO
    total += embedding_ns(costs, row, num_embedded) + head_ns(costs, row, num_rows)
    return total + costs[row, OVERHEAD_NS]
