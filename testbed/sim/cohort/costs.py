"""How long a pass takes: the roofline of testbed.actors.costs, number for number."""

from __future__ import annotations

from testbed.sim.cohort.arithmetic import ceil_ns
from testbed.sim.cohort.compiling import compiled
from testbed.sim.cohort.state import (
    AT_SPLITS,
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
    NUM_SPLITS,
    OVERHEAD_NS,
    PAIR_FLOPS,
    PAIRS,
    POSITIONS,
    SPLIT_LAYER,
    SPLIT_WIDTH,
    TOKEN_BYTES,
    TOKEN_FLOPS,
    TOKENS,
    ZERO,
    I64Array,
)


@compiled
def layer_ns(fixed: I64Array, costs: int, tokens: int, positions: int, pairs: int) -> int:
    """One decoder layer over a batch's new tokens, KV positions moved and pairs attended."""
    moved = fixed[costs + LAYER_BYTES] + positions * fixed[costs + KV_BYTES] + tokens * fixed[costs + TOKEN_BYTES]
    flops = tokens * fixed[costs + TOKEN_FLOPS] + pairs * fixed[costs + PAIR_FLOPS]
    moving_ns, computing_ns = ceil_ns(moved, fixed[costs + BANDWIDTH]), ceil_ns(flops, fixed[costs + COMPUTE])
    return fixed[costs + OVERHEAD_NS] + max(moving_ns, computing_ns)


@compiled
def embedding_ns(fixed: I64Array, costs: int, tokens: int) -> int:
    return ceil_ns(tokens * fixed[costs + EMBEDDING_BYTES], fixed[costs + BANDWIDTH])


@compiled
def head_ns(fixed: I64Array, costs: int, num_rows: int) -> int:
    moving_ns = ceil_ns(fixed[costs + HEAD_BYTES] + num_rows * fixed[costs + HEAD_ROW_BYTES], fixed[costs + BANDWIDTH])
    return max(moving_ns, ceil_ns(num_rows * fixed[costs + HEAD_ROW_FLOPS], fixed[costs + COMPUTE]))


@compiled
def front_ns(fixed: I64Array, group: int, new: int, past: int) -> int:
    """One sequence through the layers of a device."""
    one = layer_ns(fixed, group, new, past + 2 * new, new * past + new * (new + 1) // 2)
    num_layers = fixed[group + SPLIT_LAYER]
    total = fixed[group + OVERHEAD_NS] + embedding_ns(fixed, group, new) + num_layers * one
    return total + fixed[group + HEAD_NS] if num_layers == fixed[NUM_LAYERS] else total


@compiled
def coding_ns(fixed: I64Array, costs: int, work: int) -> int:
    """One launch of a codec; `work` is bytes times passes in percent."""
    return fixed[costs + OVERHEAD_NS] + ceil_ns(work, 100 * fixed[costs + BANDWIDTH])


@compiled
def back_ns(fixed: I64Array, costs: int, num_rows: int) -> int:
    """A batch through the layers behind its cuts; the rows of the splits hold what it adds up to."""
    tokens = positions = pairs = total = ZERO
    first = fixed[AT_SPLITS]
    end = first + fixed[NUM_SPLITS] * SPLIT_WIDTH
    for split in range(first, end, SPLIT_WIDTH):
        tokens += fixed[split + TOKENS]
        positions += fixed[split + POSITIONS]
        pairs += fixed[split + PAIRS]
        stop = fixed[split + SPLIT_WIDTH + LAYER] if split + SPLIT_WIDTH < end else fixed[NUM_LAYERS]
        if tokens:
            total += (stop - fixed[split + LAYER]) * layer_ns(fixed, costs, tokens, positions, pairs)
    num_embedded = fixed[first + TOKENS] if fixed[first + LAYER] == 0 else ZERO
    total += embedding_ns(fixed, costs, num_embedded) + head_ns(fixed, costs, num_rows)
    return total + fixed[costs + OVERHEAD_NS]
