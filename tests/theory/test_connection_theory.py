"""Connections against the square-root law. Seeds are fixed, intervals hold with 99 %."""

from __future__ import annotations

import pytest

from tests.theory.square_root import measure


@pytest.mark.parametrize(
    ("kind", "p", "num_losses"),
    [("tcp", 0.001, 60), ("tcp", 0.005, 160), ("tcp", 0.01, 240), ("tcp", 0.02, 300), ("quic", 0.01, 160)],
)
def test_long_transfers_follow_the_square_root_law(kind, p, num_losses):
    row = measure(kind, p, num_losses=num_losses)
    assert row.half_width < 0.25
    assert 0.7 < row.ratio - row.half_width < row.ratio + row.half_width < 1.4
