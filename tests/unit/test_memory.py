"""Memory demand against the method's check values for Llama 2 and against the law added up by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.actors.memory import (
    NOTHING,
    edge_demand,
    free_bytes,
    largest_split,
    server_kv_bytes,
    server_weights_bytes,
)
from testbed.core.errors import ModelError
from testbed.models.shape import ModelShape
from testbed.models.source import resolve
from testbed.scenarios.profiles import DeviceProfile

LLAMA_7B = resolve("llama-2-7b").shape
LLAMA_13B = resolve("llama-2-13b").shape
KIB = 1024


def device(memory: str, reserved: str = "1 GB") -> DeviceProfile:
    return DeviceProfile.model_validate(
        {
            "name": "test",
            "memory": memory,
            "reserved_memory": reserved,
            "memory_bandwidth": "10 GB/s",
            "compute": "1 TFLOP/s",
            "kernel_overhead": "1 us",
            "idle_power": "1 W",
            "active_power": "2 W",
            "transmit_power": "1 W",
            "receive_power": "1 W",
        }
    )


@pytest.mark.parametrize(
    ("shape", "layer_weights", "kv_bytes_per_token"),
    [(LLAMA_7B, 202_375_168 + 2 * 4096, 512 * KIB), (LLAMA_13B, 317_194_240 + 2 * 5120, 800 * KIB)],
)
def test_published_check_values(shape: ModelShape, layer_weights: int, kv_bytes_per_token: int) -> None:
    one = edge_demand(shape, 1, 1, 16, 16)
    whole = edge_demand(shape, shape.num_layers, 1, 16, 16)
    assert one.weights_bytes == 2 * layer_weights  # matrices as the method counts them, and two norms
    assert whole.kv_bytes == kv_bytes_per_token


def test_cloud_only_needs_nothing_on_the_device() -> None:
    assert edge_demand(LLAMA_7B, 0, 4096, 16, 16) == NOTHING
    assert NOTHING.total_bytes == 0


def test_head_and_norm_join_only_on_an_edge_only_device() -> None:
    embedding = 32000 * 4096 * 2
    assert edge_demand(LLAMA_7B, 31, 10, 16, 16).fixed_bytes == embedding
    assert edge_demand(LLAMA_7B, 32, 10, 16, 16).fixed_bytes == 2 * embedding + 4096 * 2


def test_a_tied_matrix_is_held_once_on_an_edge_only_device() -> None:
    shape = resolve("llama-3.2-1b").shape
    assert edge_demand(shape, 16, 10, 16, 16).fixed_bytes == (128256 * 2048 + 2048) * 2


def test_total_is_the_sum_of_its_parts() -> None:
    demand = edge_demand(LLAMA_7B, 8, 1000, 4, 8)
    weights = 8 * (202_375_168 + 2 * 4096) // 2
    embedding = 32000 * 4096 // 2
    kv = 2 * 1000 * 8 * 4096
    work = 512 * (2 * 4096 + 3 * 11008) * 2
    assert demand.total_bytes == weights + embedding + kv + work


def test_server_holds_the_layers_behind_the_smallest_split_once() -> None:
    layer, head = 2 * (202_375_168 + 2 * 4096), 2 * (32000 * 4096 + 4096)
    assert server_weights_bytes(LLAMA_7B, [20, 10, 32], 16) == 22 * layer + head
    assert server_weights_bytes(LLAMA_7B, [0], 16) == 32 * layer + head + 2 * 32000 * 4096
    assert server_weights_bytes(LLAMA_7B, [32], 16) == 0
    assert server_weights_bytes(LLAMA_7B, [], 16) == 0
    assert server_kv_bytes(LLAMA_7B, 24, 100, 16) == 100 * 512 * KIB * 8 // 32


def test_split_beyond_the_model_is_refused() -> None:
    with pytest.raises(ModelError, match="split layer outside"):
        edge_demand(LLAMA_7B, 33, 10, 16, 16)


@given(st.integers(1, 40), st.integers(1, 4096), st.sampled_from([2, 4, 8, 16]))
def test_largest_split_fits_and_the_next_does_not(gigabytes: int, tokens: int, bits: int) -> None:
    profile = device(f"{gigabytes} GB")
    split = largest_split(profile, LLAMA_7B, tokens, bits, 16)
    assert edge_demand(LLAMA_7B, split, tokens, bits, 16).total_bytes <= free_bytes(profile)
    if split < LLAMA_7B.num_layers:
        assert edge_demand(LLAMA_7B, split + 1, tokens, bits, 16).total_bytes > free_bytes(profile)


def test_a_device_smaller_than_its_reserve_holds_nothing() -> None:
    assert free_bytes(device("1 GB", reserved="2 GB")) == 0
    assert largest_split(device("1 GB", reserved="2 GB"), LLAMA_7B, 1, 2, 2) == 0
