"""Where calls run: the interface that the in-process executor and the Ray pool share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from testbed.actors.calls import Call, Done

Role = Literal["edge", "cloud"]
Promise = Callable[[], Done]


@dataclass(frozen=True, slots=True)
class HostRef:
    """One host of a run: edge hosts emulate devices, cloud hosts serve back shards."""

    role: Role
    index: int


class Executor(Protocol):
    """Runs calls on hosts. Calls to one host run in the order they were handed in."""

    def submit(self, host: HostRef, call: Call) -> Promise:
        """Hand in a call. The promise blocks until its result is there, and may be asked more than once.

        The promise raises HostFailedError when the host is lost for good.
        """
        ...

    def close(self) -> None:
        """End every process that was started; safe to call twice, and with calls under way."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPort:
    """One device's or server's way to the host that computes for it.

    With `measured` costs a stage lasts as long as its call really took, so its result is waited for at the start.
    """

    executor: Executor
    host: HostRef
    measured: bool = False

    def submit(self, call: Call) -> Promise:
        return self.executor.submit(self.host, call)

    def duration_ns(self, promise: Promise, modelled_ns: int) -> int:
        """The stage's virtual duration: the cost model's, or the call's own wall time."""
        return promise().compute_ns if self.measured else modelled_ns
