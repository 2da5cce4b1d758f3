"""First come, first served."""

from __future__ import annotations

from typing import ClassVar, Literal

from testbed.scenarios.serving import SchedulerConfig
from testbed.schedulers.batching import BatchScheduler
from testbed.schedulers.entry import Entry, Limits, Place
from testbed.schedulers.memory import KvMemory


class FifoScheduler(BatchScheduler):
    """What has been ready longest goes first: order (ready_ns, request)."""

    class Config(SchedulerConfig):
        kind: Literal["fifo"] = "fifo"

    bounded_wait: ClassVar[bool] = True

    def __init__(self, _config: Config, *, limits: Limits, memory: KvMemory) -> None:
        super().__init__(limits=limits, memory=memory)

    def order(self, entry: Entry) -> Place:
        return (entry.ready_ns, entry.request)
