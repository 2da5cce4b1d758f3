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

_PER_BYTE = BITS_PER_BYTE * NS_PER_S


class Work(NamedTuple):
    """Packets back to back: `left` of the one of `size_bytes` in service, then `num_full`, then the last (0: none)."""

    left: int
    size_bytes: int
    num_full: int
    full_bytes: int
    last_bytes: int

    @property
    def held_bytes(self) -> int:
        """Of the packets whose last bit has not left."""
        return self.size_bytes + self.num_full * self.full_bytes + self.last_bytes


DONE = Work(0, 0, 0, 0, 0)


def work_of(num_full: int, full_bytes: int, last_bytes: int) -> Work:
    """`num_full` packets of `full_bytes`, then one of `last_bytes` (0: none); at least one in all."""
    if num_full:
        return Work(full_bytes * _PER_BYTE, full_bytes, num_full - 1, full_bytes, last_bytes)
    return Work(last_bytes * _PER_BYTE, last_bytes, 0, full_bytes, 0)


class Share(NamedTuple):
    """Of the air: weight / total."""

    weight: int
    total: int


NOTHING, ALL = Share(0, 1), Share(1, 1)


def serve(rate: Rate, share: Share, work: Work, start_ns: int, until_ns: int) -> tuple[int, Work]:
    """Serve `work` from `start_ns` on at this share of `rate`, not beyond `until_ns`.

    Returns when it was done, with DONE, or `until_ns` with what is left of it.
    """
    now_ns, (weight, total), (left, size_bytes, num_full, full_bytes, last_bytes) = start_ns, share, work
    left *= total  # so that a nanosecond serves rate * weight of it, a whole number
    full = full_bytes * _PER_BYTE * total
    while now_ns < until_ns:
        rate_bps, end_ns = rate.segment(now_ns)
        end_ns, speed = min(end_ns, until_ns), rate_bps * weight
        if not speed or left > speed * (end_ns - now_ns):
            left -= speed * (end_ns - now_ns)
            now_ns = end_ns
            continue
        now_ns -= -left // speed
        if num_full:
            packet_ns = -(-full // speed)
            whole = min(num_full - 1, (end_ns - now_ns) // packet_ns)
            now_ns += whole * packet_ns
            num_full -= whole + 1
            left, size_bytes = full, full_bytes
        elif last_bytes:
            left, size_bytes, last_bytes = last_bytes * _PER_BYTE * total, last_bytes, 0
        else:
            return now_ns, DONE
    return until_ns, Work(-(-left // total), size_bytes, num_full, full_bytes, last_bytes)


def capacity(rate: Rate, start_ns: int, until_ns: int) -> int:
    """The work that the whole rate does between two instants."""
    now_ns, done = start_ns, 0
    while now_ns < until_ns:
        rate_bps, end_ns = rate.segment(now_ns)
        end_ns = min(end_ns, until_ns)
        done += rate_bps * (end_ns - now_ns)
        now_ns = end_ns
    return done
