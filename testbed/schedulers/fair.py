"""Fair between devices: who has been served least goes first."""

from __future__ import annotations

from typing import Literal

from testbed.scenarios.serving import SchedulerConfig
from testbed.schedulers.batching import BatchScheduler
from testbed.schedulers.entry import Entry, Limits, Place, Share
from testbed.schedulers.memory import KvMemory


class FairScheduler(BatchScheduler):
    """The device that has been served least goes first: order (served, ready_ns, request).

    `served` counts the tokens that this server has run for the device.
    All passes count, prefills, steps and what is run again, by the tokens of their shares; an order holds for the
    forming of one batch, and the shares taken in it count from the next one on. A device that has been away is served
    first until it has caught up [our own design; a virtual token counter would lift it to the least of those waiting].
    Among a fixed set of devices every wait is bounded; where new devices keep coming it is not.
    """

    class Config(SchedulerConfig):
        kind: Literal["fair"] = "fair"

    def __init__(self, _config: Config, *, limits: Limits, memory: KvMemory) -> None:
        super().__init__(limits=limits, memory=memory)
        self._served_tokens: dict[int, int] = {}

    def order(self, entry: Entry) -> Place:
        return (self._served_tokens.get(entry.device, 0), entry.ready_ns, entry.request)

    def next_batch(self) -> list[Share]:
        self.sort_again()
        shares = super().next_batch()
        for share in shares:
            device = share.entry.device
            self._served_tokens[device] = self._served_tokens.get(device, 0) + share.num_tokens
        return shares
