"""The in-process executor: one shard host plays every role, calls run as they come."""

from __future__ import annotations

from testbed.actors.calls import Call, Done, HostSpec
from testbed.actors.executor import HostRef, Promise


class LocalExecutor:
    """Computes at once in this process; needs no Ray."""

    def __init__(self, spec: HostSpec) -> None:
        from testbed.actors.shard_host import ShardHost  # noqa: PLC0415 - loads torch, only for real groups

        self._host = ShardHost(spec)

    def submit(self, host: HostRef, call: Call) -> Promise:
        (done,) = self._host.execute([call])

        def promise() -> Done:
            return done

        return promise

    def close(self) -> None:
        """Nothing to end."""
