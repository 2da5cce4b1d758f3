"""The roofline against hand-computed passes, and the laws every duration must keep."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.actors.costs import CostModel
from testbed.actors.memory import free_bytes
from testbed.actors.roofline import check_parallel
from testbed.core.errors import ScenarioError
from testbed.core.work import Work
from testbed.models.shape import ModelShape
from testbed.scenarios.profiles import ServerProfile

# 3 layers, d 4, 2 heads of 2, 1 KV head, MLP 8, vocabulary 10; 100 matrix and 4 other weights a layer.
SHAPE = ModelShape(
    name="tiny",
    family="llama",
    num_layers=3,
    hidden_size=4,
    num_heads=2,
    num_kv_heads=1,
    head_dim=2,
    intermediate_size=8,
    vocab_size=10,
    max_positions=64,
    tied_embeddings=False,
    params_per_layer=100,
    extra_params_per_layer=4,
    embedding_params=40,
    head_params=44,
    head_matrix_params=40,
)
# By hand, at 16 bits: a layer's weights 104 x 2 = 208 B; K and V of one position 2 x 1 x 2 x 2 = 8 B;
# activations of a token 2 x 2 B x (4 d + (2 x 2 + 2 x 1) x 2 + 3 x 8 = 52) = 208 B; an embedding row 8 + 8 = 16 B.
OVERHEAD_NS = 5


def make(
    *, bandwidth: str = "1 GB/s", compute: str = "1 PFLOP/s", shape: ModelShape = SHAPE, **more: object
) -> CostModel:
    profile = ServerProfile.model_validate(
        {
            "name": "test",
            "memory": "1 GB",
            "reserved_memory": "1 MB",
            "memory_bandwidth": bandwidth,
            "compute": compute,
            "kernel_overhead": f"{OVERHEAD_NS} ns",
            "idle_power": "1 W",
            "active_power": "2 W",
            **more,
        }
    )
    return CostModel(profile=profile, shape=shape, weight_bits=16, kv_bits=16)


def work(start: int, stop: int, new: int = 1, past: int = 0) -> Work:
    return Work(start=start, stop=stop, new_tokens=new, past_tokens=past)


def test_decode_step_of_a_middle_layer_is_bound_by_memory() -> None:
    moved = 208 + (10 + 2) * 8 + 208  # weights; 10 positions read, 1 written and read; activations
    assert make().forward_ns([work(1, 2, past=10)]) == OVERHEAD_NS + OVERHEAD_NS + moved


def test_prefill_is_bound_by_arithmetic_when_compute_is_slow() -> None:
    pairs = 3 * 10 + (1 + 2 + 3)  # 3 new tokens: each attends to 10 old ones and to itself and the new before it
    flops = 3 * 2 * 100 + pairs * 4 * 2 * 2
    cost = make(bandwidth="1 PB/s", compute="1 GFLOP/s").forward_ns([work(1, 2, new=3, past=10)])
    assert cost == 2 * OVERHEAD_NS + flops


def test_attention_has_no_use_of_what_the_matrices_leave_idle() -> None:
    moved, flops = 208 + 10 * 208, 10 * 200  # 10 tokens' matrices: bound by memory at 1.25 operations a byte
    positions, pairs = 2 * 9 + (50 + 2), 45 + 51  # their attention: bound by arithmetic
    assert moved > flops / 1.25
    assert positions * 8 < pairs * 16 / 1.25
    cost = make(compute="1.25 GFLOP/s").forward_ns([work(1, 2, new=9), work(1, 2, past=50)])
    assert cost == 2 * OVERHEAD_NS + moved + math.ceil(pairs * 16 / 1.25)


@pytest.mark.parametrize(("gflops", "moving", "computing"), [(1, 416, 200), (0.5, 416, 400), (0.25, 416, 800)])
def test_partial_overlap_adds_a_third_of_the_square_of_the_shorter(gflops: float, moving: int, computing: int) -> None:
    sharp = make(compute=f"{gflops} GFLOP/s").forward_ns([work(1, 2)])
    soft = make(compute=f"{gflops} GFLOP/s", overlap="partial").forward_ns([work(1, 2)])
    attention = (16, 16 / gflops)  # one token: 2 positions of 8 B, 1 pair of 16 operations
    added = [min(pair) ** 2 / (3 * max(pair)) for pair in ((moving, computing), attention)]
    assert soft - sharp == sum(math.ceil(item) for item in added)


def test_processors_that_share_layers_hold_a_part_and_add_up_hidden_states() -> None:
    # Two of them: 1 of 2 heads, the one KV head held by both, half of the MLP and of the vocabulary.
    ring = {"tensor_parallel": 2, "interconnect_bandwidth": "1 GB/s", "interconnect_latency": "7 ns"}
    model = make(**ring)
    layer_bytes = (100 + 2 * 4 * 2 * 1) // 2 * 2 + 4 * 2  # K and V of d x D once more; norms whole
    token_bytes = 2 * 2 * (4 * 4 + (2 * 1 + 2 * 1) * 2 + 3 * 4)
    all_reduce = 7 + 4 * 2  # 2 (n - 1) / n of d values
    layer = OVERHEAD_NS + layer_bytes + token_bytes + 12 * 8 + 2 * all_reduce
    assert model.forward_ns([work(1, 2, past=10)]) == OVERHEAD_NS + layer
    head = (44 - 40 + 20) * 2 + (4 + 5) * 2
    assert model.forward_ns([work(2, 3, past=10)]) == OVERHEAD_NS + layer + head


def test_flops_are_those_of_the_model_shape() -> None:
    cost = make(bandwidth="1 PB/s", compute="1 GFLOP/s").forward_ns([work(0, 3, new=5, past=7)])
    assert cost == pytest.approx(SHAPE.flops(5, 7, 0, 3, logits_rows=1) + 4 * OVERHEAD_NS, abs=1)


def test_embedding_is_a_gather_and_the_head_runs_once_a_batch() -> None:
    model = make()
    layers = 3 * (OVERHEAD_NS + 208 + 2 * (2 * 8 + 208))
    head = 44 * 2 + 2 * (4 + 10) * 2
    assert model.forward_ns([work(0, 3), work(0, 3)]) == OVERHEAD_NS + 2 * 16 + layers + head


def test_sequences_with_other_splits_share_the_layers_they_have_in_common() -> None:
    model = make()
    token = 2 * 8 + 208
    first_layer = OVERHEAD_NS + 208 + token
    shared_layers = 2 * (OVERHEAD_NS + 208 + 2 * token)
    head = 44 * 2 + 2 * (4 + 10) * 2
    cost = model.forward_ns([work(0, 3), work(1, 3)])
    assert cost == OVERHEAD_NS + 16 + first_layer + shared_layers + head


def test_a_gap_between_ranges_costs_nothing() -> None:
    model = make()
    layer = OVERHEAD_NS + 208 + 2 * 8 + 208
    assert model.forward_ns([work(0, 1), work(2, 3)]) == OVERHEAD_NS + 16 + 2 * layer + 44 * 2 + 14 * 2


def test_nothing_to_run_takes_no_time() -> None:
    assert make().forward_ns([]) == 0
    assert make().forward_ns([work(2, 2), work(3, 3, new=9), work(0, 3, new=0)]) == 0


def test_fewer_bits_move_fewer_bytes() -> None:
    profile = make().profile
    model = CostModel(profile=profile, shape=SHAPE, weight_bits=4, kv_bits=8)
    assert model.forward_ns([work(1, 2, past=10)]) == 2 * OVERHEAD_NS + 52 + 12 * 4 + 208


def test_codec_is_one_launch_and_the_bytes_moved() -> None:
    assert make(bandwidth="2 GB/s").codec_ns(1000, 501) == OVERHEAD_NS + 751


works = st.builds(
    lambda first, second, new, past: work(min(first, second), max(first, second), new, past),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(1, 300),
    st.integers(0, 300),
)
models = st.builds(
    lambda bandwidth, compute, overlap, processors: make(
        bandwidth=f"{bandwidth} MB/s",
        compute=f"{compute} MFLOP/s",
        overlap=overlap,
        tensor_parallel=processors,
        interconnect_bandwidth="50 MB/s",
    ),
    st.integers(1, 100_000),
    st.integers(1, 100_000),
    st.sampled_from(["full", "partial"]),
    st.sampled_from([1, 2]),
)


@given(models, st.lists(works, min_size=1, max_size=8))
def test_a_batch_lies_between_its_largest_part_and_the_sum(model: CostModel, batch: list[Work]) -> None:
    alone = [model.forward_ns([item]) for item in batch]
    assert max(alone) <= model.forward_ns(batch) <= sum(alone)


@given(models, st.lists(works, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_order_of_a_batch_does_not_matter(model: CostModel, batch: list[Work], random: Random) -> None:
    shuffled = list(batch)
    random.shuffle(shuffled)
    assert model.forward_ns(shuffled) == model.forward_ns(batch)


more = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 3), st.integers(0, 3))


@given(models, works, more)
def test_more_work_never_takes_less(model: CostModel, item: Work, added: tuple[int, int, int, int]) -> None:
    more_new, more_past, earlier, later = added
    larger = work(
        max(0, item.start - earlier),
        min(3, item.stop + later),
        item.new_tokens + more_new,
        item.past_tokens + more_past,
    )
    assert model.forward_ns([item]) <= model.forward_ns([larger])


def test_a_host_that_launches_slowly_bounds_every_layer_from_below() -> None:
    step, prefill = [work(1, 3, past=10)], [work(1, 3, new=90)]
    head = 44 * 2 + 14 * 2
    assert make(host_time="9 us").forward_ns(step) == OVERHEAD_NS + 2 * 9000 + head
    assert make(host_time="9 us").forward_ns(prefill) == make().forward_ns(prefill)


def test_heads_that_do_not_divide_are_refused_with_what_does() -> None:
    profile = make(tensor_parallel=3, interconnect_bandwidth="1 GB/s").profile
    assert isinstance(profile, ServerProfile)
    with pytest.raises(ScenarioError) as caught:
        check_parallel(profile, SHAPE)
    assert (caught.value.path, caught.value.value, caught.value.allowed) == ("tensor_parallel", 3, "1, 2")


def test_sharing_layers_needs_an_interconnect_and_multiplies_the_price() -> None:
    with pytest.raises(ValueError, match="need an interconnect"):
        make(tensor_parallel=2)
    profile = make(tensor_parallel=4, interconnect_bandwidth="1 GB/s", price_per_hour=1.5).profile
    assert isinstance(profile, ServerProfile)
    assert profile.worker_price_per_hour == 6.0
    assert free_bytes(profile) == 4 * (10**9 - 10**6)
