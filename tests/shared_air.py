"""Shared air for tests: packets of several members, without links around them."""

from __future__ import annotations

from typing import NamedTuple

import simpy

from testbed.core.registry import DISCIPLINES
from testbed.network_models.rates.segments import FOREVER, Segment
from testbed.network_models.sharing.air import Air


class Steps:
    """A rate that takes these values (bit/s) in turn, each for `step_ns`, over and over."""

    def __init__(self, *rates_bps, step_ns=FOREVER):
        self._rates_bps, self._step_ns = rates_bps, step_ns

    def segment(self, time_ns):
        step = time_ns // self._step_ns
        return Segment(self._rates_bps[step % len(self._rates_bps)], (step + 1) * self._step_ns)


class Sent(NamedTuple):
    """One packet: when, whose, how large."""

    time_ns: int
    member: int
    num_bytes: int


def discipline_of(kind, **config):
    row = DISCIPLINES.load(kind)
    return row(row.Config(kind=kind, **config))


def share(discipline, rates, jobs, *, weights=None, until_ns=None):
    """Send the packets (ascending times). Returns how each was served by the end, the air, its members."""
    env = simpy.Environment()
    air = Air(env, discipline)
    members = [air.join(rate, 1 if weights is None else weights[place]) for place, rate in enumerate(rates)]
    served = {}

    def send():
        for number, job in enumerate(jobs):
            if job.time_ns > env.now:
                yield env.timeout(int(job.time_ns) - env.now)
            members[job.member].offer(job.num_bytes, lambda told, number=number: served.update({number: told}))

    env.process(send())
    env.run(until=until_ns)
    return [served.get(number) for number in range(len(jobs))], air, members
