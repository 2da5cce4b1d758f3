"""A shard host as a Ray actor, and how one is started."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from testbed.actors.calls import Call, Done, HostSpec

HOST_CPUS = 0.5  # of Ray's bookkeeping: an edge host and a cloud host fit one core; Ray gives each one OpenMP thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a host runs."""

    pid: int
    node_id: str
    address: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.address}"


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A call raised: the host is well, the run is not."""

    error: Exception


class RayHost:
    """The actor: one process that holds one `ShardHost`."""

    def __init__(self, spec: HostSpec) -> None:
        self._spec = spec
        self._host: Any = None

    def ready(self) -> Place | CallFailed:
        """Load what a host needs before its first call, and say where it is."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches a terminal's whole group: the driver decides
        try:
            from testbed.actors.shard_host import ShardHost  # noqa: PLC0415 - loads torch, in the actor only

            self._host = ShardHost(self._spec)
        except Exception as error:
            return CallFailed(_portable(error))
        context = ray.get_runtime_context()
        return Place(pid=os.getpid(), node_id=context.get_node_id(), address=str(ray.util.get_node_ip_address()))  # type: ignore[no-untyped-call]

    def execute(self, calls: Sequence[Call], num_known: int) -> list[Done] | CallFailed:
        """Run calls in order; the results of the first `num_known` are known already and stay here."""
        try:
            done: list[Done] = self._host.execute(calls)
        except Exception as error:
            return CallFailed(_portable(error))
        return done[num_known:]


def create_host(spec: HostSpec) -> Any:
    """An actor for this spec, on the node with the most room; it takes a GPU where the spec asks for one."""
    options = {"num_cpus": HOST_CPUS, "num_gpus": int(spec.use_gpu), "scheduling_strategy": "SPREAD"}
    return ray.remote(RayHost).options(max_restarts=0, max_task_retries=0, **options).remote(spec)


def _portable(error: Exception) -> Exception:
    """The error as it can travel, with the host's own traceback as a note."""
    note = "on the host:\n" + "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error
