"""Bits under a share of a link's own rate, in integers: served to the nanosecond, never faster than the share.

Work is counted in bit-nanoseconds a second, so that a rate of R bit/s serves R of them a nanosecond, and a share of
weight w among W in all serves R w / W. A packet ends at the first whole nanosecond by which all of it is served, and
the next begins there, as on a link of one's own (`rates.segments`). Where a share changes within a packet, what is
served of it is rounded down to whole units, 1e-9 of a bit.
"""

from __future__ import annotations

from typing import NamedTuple

from testbed.core.units import BITS_PER_BYTE, NS_PER_S
from testbed.network_models.rates.segments import Rate


def work_of(size_bytes: int) -> int:
    """All of a packet."""
    return size_bytes * BITS_PER_BYTE * NS_PER_S


class Share(NamedTuple):
    """Of the air: weight / total."""

    weight: int
    total: int


NOTHING, ALL = Share(0, 1), Share(1, 1)


def serve(rate: Rate, share: Share, left: int, start_ns: int, until_ns: int) -> tuple[int, int]:
    """Serve the work `left` of a packet from `start_ns` on at this share of `rate`, not beyond `until_ns`.

    Returns when it was done, and 0, or `until_ns` and what is left then.
    """
    now_ns, (weight, total) = start_ns, share
    left *= total  # so that a nanosecond serves rate * weight of it, a whole number
    while now_ns < until_ns:
        rate_bps, end_ns = rate.segment(now_ns)
        end_ns, speed = min(end_ns, until_ns), rate_bps * weight
        if speed and left <= speed * (end_ns - now_ns):
            return now_ns - (-left // speed), 0
        left -= speed * (end_ns - now_ns)
        now_ns = end_ns
    return until_ns, -(-left // total)


def capacity(rate: Rate, start_ns: int, until_ns: int) -> int:
    """The work that the whole rate does between two instants."""
    now_ns, done = start_ns, 0
    while now_ns < until_ns:
        rate_bps, end_ns = rate.segment(now_ns)
        end_ns = min(end_ns, until_ns)
        done += rate_bps * (end_ns - now_ns)
        now_ns = end_ns
    return done
