"""Packets that each wait for the one before: sent, then a pause, then the next."""

from __future__ import annotations

from testbed.network_models.rates.segments import Rate, finish_ns


def paced_ns(rate: Rate, start_ns: int, size_bytes: int, count: int, pause_ns: int) -> int:
    """When the last bit of the last of `count` packets has left; each begins `pause_ns` after the one before left."""
    left_ns, done = start_ns - pause_ns, 0
    while done < count:
        begin_ns = left_ns + pause_ns
        one_ns = finish_ns(rate, begin_ns, size_bytes) - begin_ns
        end_ns = rate.segment(begin_ns).end_ns
        whole = min(count - done, max(1, (end_ns - begin_ns + pause_ns) // (one_ns + pause_ns)))
        left_ns, done = begin_ns + whole * (one_ns + pause_ns) - pause_ns, done + whole
    return left_ns


def num_paced(rate: Rate, start_ns: int, size_bytes: int, pause_ns: int, until_ns: int) -> int:
    """How many of such packets have left by `until_ns`."""
    begin_ns, count = start_ns, 0
    while begin_ns < until_ns:
        one_ns = finish_ns(rate, begin_ns, size_bytes) - begin_ns
        end_ns = min(rate.segment(begin_ns).end_ns, until_ns)
        whole = (end_ns - begin_ns + pause_ns) // (one_ns + pause_ns)
        if not whole:
            whole = int(begin_ns + one_ns <= until_ns)
            if not whole:
                break
        begin_ns, count = begin_ns + whole * (one_ns + pause_ns), count + whole
    return count
