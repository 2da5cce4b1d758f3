"""Shortest first: the mean wait falls, long requests pay for it."""

from __future__ import annotations

from typing import Literal

from testbed.scenarios.serving import SchedulerConfig
from testbed.schedulers.batching import BatchScheduler
from testbed.schedulers.entry import Entry, Limits, Place
from testbed.schedulers.memory import KvMemory


class ShortestFirstScheduler(BatchScheduler):
    """The shortest prompt or the shortest answer goes first: order (length, ready_ns, request), fixed when queued.

    `by: prompt` takes for a pass's length the tokens it has to run: a prompt, or 1 for a step. `by: output` takes the
    most tokens that the request may be answered with, a prefill's and a step's alike. No wait is bounded: a long one
    waits as long as shorter ones keep coming.
    """

    class Config(SchedulerConfig):
        kind: Literal["shortest-first"] = "shortest-first"
        by: Literal["prompt", "output"] = "prompt"

    def __init__(self, config: Config, *, limits: Limits, memory: KvMemory) -> None:
        super().__init__(limits=limits, memory=memory)
        self._by_prompt = config.by == "prompt"

    def order(self, entry: Entry) -> Place:
        length = entry.left_tokens if self._by_prompt else entry.max_output_tokens
        return (length, entry.ready_ns, entry.request)
