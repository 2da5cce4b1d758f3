"""How many actors a run gets is bounded by the cluster, never by the fleet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.actors.ray_setup import host_counts

ASKED = st.integers(min_value=1, max_value=1024)


@given(edges=ASKED, clouds=ASKED, cpus=st.integers(0, 512), gpus=st.integers(0, 16))
def test_bounds(edges: int, clouds: int, cpus: int, gpus: int) -> None:
    num_edges, num_clouds = host_counts(edges, clouds, num_cpus=cpus, num_gpus=gpus)
    assert 1 <= num_edges <= edges
    assert 1 <= num_clouds <= clouds
    assert num_edges + num_clouds <= max(2, cpus)
    if gpus:
        assert num_clouds <= gpus
    else:  # no core stays idle while a host that was asked for has none
        assert num_edges + num_clouds == min(edges + clouds, max(2, cpus))


@pytest.mark.parametrize(
    ("asked", "cpus", "gpus", "given_"),
    [
        ((1, 1), 1, 0, (1, 1)),
        ((3, 2), 5, 0, (3, 2)),
        ((3, 2), 4, 0, (2, 2)),
        ((100, 100), 7, 0, (4, 3)),
        ((1, 100), 8, 0, (1, 7)),
        ((100, 1), 8, 0, (7, 1)),
        ((4, 4), 16, 1, (4, 1)),
    ],
)
def test_shares(asked: tuple[int, int], cpus: int, gpus: int, given_: tuple[int, int]) -> None:
    assert host_counts(*asked, num_cpus=cpus, num_gpus=gpus) == given_
