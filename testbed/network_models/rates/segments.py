"""A rate that is constant for a while, then another: what every rate process is to a queue.

A packet's bits leave at the rate of each instant. A packet ends at the first whole nanosecond by which all its bits
have left, and the next begins there: `finish_ns` of n packets is n times `finish_ns` of one, exactly.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from testbed.core.errors import ScenarioError
from testbed.core.units import BITS_PER_BYTE, NS_PER_S, ns_to_seconds

FOREVER = 1 << 62
_MOST_SEGMENTS = 1_000_000  # a packet passes through; more is a rate that comes to nothing
_MINUS_BIT_NS_PER_BYTE = -BITS_PER_BYTE * NS_PER_S  # negative: a floor division of it rounds up


class Segment(NamedTuple):
    """The rate from some instant until `end_ns`, exclusive; 0 while nothing leaves."""

    rate_bps: int
    end_ns: int


class Rate(Protocol):
    """Bits a second at every instant: a pure function of time, whatever is sent."""

    def segment(self, time_ns: int) -> Segment:
        """The segment that holds `time_ns`."""
        ...


def finish_ns(rate: Rate, start_ns: int, size_bytes: int, count: int = 1) -> int:
    """When the last bit of `count` packets of `size_bytes` has left, the first of them from `start_ns` on."""
    rate_bps, end_ns = rate.segment(start_ns)
    if rate_bps:  # nearly always one segment holds them all
        left_ns = start_ns - count * (size_bytes * _MINUS_BIT_NS_PER_BYTE // rate_bps)
        if left_ns <= end_ns:
            return left_ns
    return _finish_over_segments(rate, start_ns, size_bytes, count)


def _finish_over_segments(rate: Rate, now_ns: int, size_bytes: int, count: int) -> int:
    while count:
        rate_bps, end_ns = rate.segment(now_ns)
        one_ns = packet_ns(size_bytes, rate_bps) if rate_bps else FOREVER
        whole = min(count, (end_ns - now_ns) // one_ns)
        now_ns += whole * one_ns
        count -= whole
        if count and whole == 0:
            now_ns = _finish_across(rate, now_ns, size_bytes)
            count -= 1
    return now_ns


def num_finished(rate: Rate, start_ns: int, size_bytes: int, until_ns: int) -> int:
    """How many packets of `size_bytes`, back to back from `start_ns` on, have left by `until_ns`."""
    now_ns, count = start_ns, 0
    while now_ns < until_ns:
        rate_bps, end_ns = rate.segment(now_ns)
        one_ns = packet_ns(size_bytes, rate_bps) if rate_bps else FOREVER
        whole = (min(end_ns, until_ns) - now_ns) // one_ns
        now_ns += whole * one_ns
        count += whole
        if whole == 0:
            now_ns = _finish_across(rate, now_ns, size_bytes)
            count += now_ns <= until_ns
    return count


def packet_ns(size_bytes: int, rate_bps: int) -> int:
    """One packet's time at this rate, rounded up."""
    return -(-size_bytes * BITS_PER_BYTE * NS_PER_S // rate_bps)


def _finish_across(rate: Rate, now_ns: int, size_bytes: int) -> int:
    """One packet that one segment alone can't hold; `left` is in bit-nanoseconds a second."""
    left = size_bytes * BITS_PER_BYTE * NS_PER_S
    for _ in range(_MOST_SEGMENTS):
        rate_bps, end_ns = rate.segment(now_ns)
        if rate_bps:
            if left <= rate_bps * (end_ns - now_ns):
                return now_ns - (-left // rate_bps)
            left -= rate_bps * (end_ns - now_ns)
        now_ns = end_ns
    raise ScenarioError(
        f"a packet of {size_bytes} B does not get through while its link's rate changes {_MOST_SEGMENTS:,} times",
        value=f"{ns_to_seconds(now_ns):g} s", allowed="a rate and outages that leave something",
    )  # fmt: skip
