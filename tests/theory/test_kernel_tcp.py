"""Our TCP against the kernel's; `python -m tests.theory.kernel_tcp` prints more of the same."""

from __future__ import annotations

import pytest

from tests.theory.kernel_tcp import KIB, MS, compare, missing, predict

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


def test_the_bucket_lets_a_burst_pass_at_once():
    # Three packets of 1,500 bytes fit 5,000; the fourth waits for the tokens of another 1,000, 0.4 ms at 20 Mbit/s.
    assert predict(20_000_000, 10 * MS, "reno", 3 * 1460) == 30 * MS
    assert predict(20_000_000, 10 * MS, "reno", 4 * 1460) == 30 * MS + 400_000
