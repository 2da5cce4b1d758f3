"""How long a pass takes: the roofline of testbed.actors.costs, number for number."""

from __future__ import annotations

from testbed.actors.roofline import ALL_REDUCES
from testbed.sim.cohort.arithmetic import ceil_ns, ceil_ratio
from testbed.sim.cohort.compiling import compiled
from testbed.sim.cohort.state import (
    ALL_REDUCE_NS,
    AT_SPLITS,
    BANDWIDTH,
    COMPUTE,
    EMBEDDING_BYTES,
    HEAD_BYTES,
    HEAD_NS,
    HEAD_ROW_BYTES,
    HEAD_ROW_FLOPS,
    HOST_NS,
    LAYER,
    LAYER_BYTES,
    NUM_LAYERS,
    NUM_SPLITS,
    OVERHEAD_NS,
    OVERLAPS_FULLY,
    PAIR_FLOPS,
    PAIRS,
    POSITION_BYTES,
    POSITIONS,
    RING_BANDWIDTH,
    RING_BYTES,
    SPLIT_LAYER,
    SPLIT_WIDTH,
    TOKEN_BYTES,
    TOKEN_FLOPS,
    TOKENS,
    ZERO,
    Cells,
)


@compiled
def _kernel_ns(fixed: Cells, costs: int, moved_bytes: int, flops: int) -> int:
    moving, computing = ceil_ns(moved_bytes, fixed[costs + BANDWIDTH]), ceil_ns(flops, fixed[costs + COMPUTE])
    longer, shorter = max(moving, computing), min(moving, computing)
    if fixed[costs + OVERLAPS_FULLY] or not shorter:
        return longer
    return longer + ceil_ratio(shorter, shorter, 3 * longer)


@compiled
def layer_ns(fixed: Cells, costs: int, tokens: int, positions: int, pairs: int) -> int:
    """One decoder layer over a batch's new tokens, KV positions moved and pairs attended."""
    moved_bytes = fixed[costs + LAYER_BYTES] + tokens * fixed[costs + TOKEN_BYTES]
    matrices_ns = _kernel_ns(fixed, costs, moved_bytes, tokens * fixed[costs + TOKEN_FLOPS])
    positions_bytes = positions * fixed[costs + POSITION_BYTES]
    attention_ns = _kernel_ns(fixed, costs, positions_bytes, pairs * fixed[costs + PAIR_FLOPS])
    total = fixed[costs + OVERHEAD_NS] + matrices_ns + attention_ns
    if fixed[costs + RING_BYTES]:
        ring_ns = ceil_ns(tokens * fixed[costs + RING_BYTES], fixed[costs + RING_BANDWIDTH])
        total += ALL_REDUCES * (fixed[costs + ALL_REDUCE_NS] + ring_ns)
    return max(total, fixed[costs + HOST_NS])


@compiled
def embedding_ns(fixed: Cells, costs: int, tokens: int) -> int:
    return ceil_ns(tokens * fixed[costs + EMBEDDING_BYTES], fixed[costs + BANDWIDTH])


@compiled
def head_ns(fixed: Cells, costs: int, num_rows: int) -> int:
    if not num_rows:
        return ZERO
    moved_bytes = fixed[costs + HEAD_BYTES] + num_rows * fixed[costs + HEAD_ROW_BYTES]
    return _kernel_ns(fixed, costs, moved_bytes, num_rows * fixed[costs + HEAD_ROW_FLOPS])


@compiled
def front_ns(fixed: Cells, group: int, new: int, past: int) -> int:
    """One sequence through the layers of a device."""
    one = layer_ns(fixed, group, new, past + 2 * new, new * past + new * (new + 1) // 2)
    num_layers = fixed[group + SPLIT_LAYER]
    total = fixed[group + OVERHEAD_NS] + embedding_ns(fixed, group, new) + num_layers * one
    return total + fixed[group + HEAD_NS] if num_layers == fixed[NUM_LAYERS] else total


@compiled
def coding_ns(fixed: Cells, costs: int, work: int) -> int:
    """One launch of a codec; `work` is bytes times passes in percent."""
    return fixed[costs + OVERHEAD_NS] + ceil_ns(work, 100 * fixed[costs + BANDWIDTH])


@compiled
def back_ns(fixed: Cells, costs: int, num_rows: int) -> int:
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
