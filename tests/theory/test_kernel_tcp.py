"""Our TCP against the kernel's; `python -m tests.theory.kernel_tcp` prints more of the same."""

from __future__ import annotations

import pytest

from tests.theory.kernel_tcp import KIB, MS, compare, missing

# A busy machine delays the wire's process by milliseconds, which weighs on small transfers.
BOUND, SMALL_BOUND = 0.15, 0.3


@pytest.mark.netns
@pytest.mark.parametrize("setting", [(20_000_000, 10 * MS, "reno"), (50_000_000, 20 * MS, "cubic")])
def test_transfer_times_of_the_kernel_are_predicted(setting):
    reason = missing()
    if reason:
        pytest.skip(reason)
    for row in compare(setting, repetitions=5):
        assert abs(row.error) < (SMALL_BOUND if row.size_bytes <= 64 * KIB else BOUND), row
