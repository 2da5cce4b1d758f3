"""Earliest deadline first: who is nearest to missing a latency target goes first."""

from __future__ import annotations

from typing import Literal

from testbed.scenarios.base import PositiveTimeNs
from testbed.scenarios.serving import SchedulerConfig
from testbed.schedulers.batching import BatchScheduler
from testbed.schedulers.entry import Entry, Limits, Place
from testbed.schedulers.memory import KvMemory


class EarliestDeadlineScheduler(BatchScheduler):
    """What is due first goes first: order (deadline, ready_ns, request), fixed when the pass is queued.

    The deadline of a request's first token is its arrival at the device plus `ttft`, that of a later one the end of
    the iteration that gave its last token plus `tpot`. Two requests' deadlines differ by no more than time does, so a
    request whose deadline has passed goes before all that arrive more than `ttft` later: every wait is bounded.
    """

    class Config(SchedulerConfig):
        kind: Literal["earliest-deadline"] = "earliest-deadline"
        ttft: PositiveTimeNs
        tpot: PositiveTimeNs

    bounded_wait = True

    def __init__(self, config: Config, *, limits: Limits, memory: KvMemory) -> None:
        super().__init__(limits=limits, memory=memory)
        self._ttft_ns = config.ttft
        self._tpot_ns = config.tpot

    def order(self, entry: Entry) -> Place:
        target_ns = self._ttft_ns if entry.is_first else self._tpot_ns
        return (entry.since_ns + target_ns, entry.ready_ns, entry.request)
