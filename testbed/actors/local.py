"""The in-process executor: one shard host plays every role.

Calls wait until one of them is asked for its result; then all that wait run, in order. So the fronts of devices that
compute at the same virtual time go through the shards together.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.actors.calls import Call, Done, HostSpec
from testbed.actors.executor import HostRef, Promise


class LocalExecutor:
    """Computes in this process; needs no Ray."""

    def __init__(self, spec: HostSpec) -> None:
        from testbed.actors.shard_host import ShardHost  # noqa: PLC0415 - loads torch, only for real groups

        self._host = ShardHost(spec)
        self._waiting: list[_Pending] = []

    def submit(self, host: HostRef, call: Call) -> Promise:
        self._waiting.append(pending := _Pending(call))

        def promise() -> Done:
            if pending.done is None:
                self._run_waiting()
            assert pending.done is not None, "it was waiting"
            return pending.done

        return promise

    def close(self) -> None:
        """What nobody has asked for is not run any more."""
        self._waiting.clear()

    def _run_waiting(self) -> None:
        batch, self._waiting = self._waiting, []
        for pending, done in zip(batch, self._host.execute([pending.call for pending in batch]), strict=True):
            pending.done = done


@dataclass(slots=True)
class _Pending:
    call: Call
    done: Done | None = None
