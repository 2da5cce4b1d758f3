"""Shard hosts on Ray: few actors, one call for many steps, and what happens when one is lost.

The number of actors is bounded by the cluster, never by the fleet (`ray_setup.host_counts`). Host numbers beyond it
share an actor, which changes no result: see `testbed.actors.shard_host`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from testbed.actors.ray_setup import be_quiet, check_address, host_counts, keep_token, uninterrupted, usable_cpus

be_quiet()  # some of Ray's settings are read when it is imported

# ruff: noqa: E402
import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from testbed.actors.calls import Call, Done, HostSpec
from testbed.actors.executor import HostRef, Promise, Role
from testbed.actors.host_queue import CallLog, HostQueue, Pending
from testbed.actors.ray_host import CallFailed, Place, create_host
from testbed.core.errors import HostFailedError

OBJECT_STORE_BYTES = 200 * 2**20  # messages in transit; what doesn't fit goes to disk
START_TIMEOUT_S = 120.0  # for an actor to be placed and to import torch; also while a lost node is being noticed
MAX_WAITING = 64  # calls that a host leaves waiting while nobody asks for a result
RETRY_PAUSE_S = 1.0
MAX_RESTARTS = 3  # of one host in one run
MAX_CAUSE_CHARS = 300


@dataclass(slots=True, kw_only=True)
class _Lane:
    """One host: its queue, its actor, and the batch in flight."""

    name: str
    spec: HostSpec
    queue: HostQueue
    actor: Any
    place: Place | None = None
    ref: Any = None  # of the batch in flight
    num_restarts: int = 0


class RayPool:
    """Executor over Ray actors.

    A free cloud host gets its call at once, since a server's call is a batch already. Calls to edge hosts wait until
    somebody asks for a result that is not there; then every free host gets all that waits for it as one actor call,
    so that hosts work side by side and one call serves many devices. With `replay` a lost host is
    started again, brought to its state by running its open sessions' calls once more, and the run goes on unchanged;
    without, or after `MAX_RESTARTS`, promises raise HostFailedError. An error inside a call ends the run as itself.
    """

    def __init__(self, spec: HostSpec, *, edge_hosts: int, cloud_hosts: int, address: str | None, replay: bool) -> None:
        self.num_calls = 0  # handed to actors, replayed ones included
        self.num_batches = 0
        self._replay = replay
        self._failure: Exception | None = None
        self._lanes: dict[Role, list[_Lane]] = {"edge": [], "cloud": []}
        self._cluster = _Cluster(address, max_hosts=edge_hosts + cloud_hosts)
        try:
            self._start_all(spec, edge_hosts, cloud_hosts)
        except BaseException:
            self.close()
            raise

    @property
    def places(self) -> dict[str, Place | None]:
        """Where every host runs now."""
        return {lane.name: lane.place for lane in self._all}

    @property
    def num_restarts(self) -> int:
        """Hosts that were lost and started again."""
        return sum(lane.num_restarts for lane in self._all)

    def submit(self, host: HostRef, call: Call) -> Promise:
        """Hand in a call; never raises, so that a run that is being unwound can still close its sessions."""
        lanes = self._lanes[host.role]
        lane = lanes[host.index % len(lanes)]
        pending = Pending(call) if self._failure is not None else lane.queue.add(call)
        if self._failure is None:
            self._relieve(lane, at_once=host.role == "cloud")
        return lambda: self._await(lane, pending)

    def close(self) -> None:
        """End the actors and whatever of Ray was started; calls that nobody waits for are dropped."""
        if self._failure is None:
            self._failure = HostFailedError("the hosts have been closed")
        with uninterrupted():
            for lane in self._all:
                lane.queue.waiting.clear()
                self._cluster.end(lane.actor)
                lane.actor = None
            self._cluster.close()

    @property
    def _all(self) -> list[_Lane]:
        return [*self._lanes["edge"], *self._lanes["cloud"]]

    def _start_all(self, spec: HostSpec, edge_hosts: int, cloud_hosts: int) -> None:
        use_gpu = self._cluster.num_gpus > 0
        edges, clouds = host_counts(
            edge_hosts, cloud_hosts, num_cpus=self._cluster.num_cpus, num_gpus=self._cluster.num_gpus
        )
        counts: dict[Role, int] = {"edge": edges, "cloud": clouds}
        for role, count in counts.items():
            own = replace(spec, use_gpu=use_gpu and role == "cloud")
            for index in range(count):
                queue = HostQueue(CallLog() if self._replay else None)
                lane = _Lane(name=f"{role} host {index}", spec=own, queue=queue, actor=create_host(own))
                self._lanes[role].append(lane)
        for lane in self._all:
            try:
                lane.place = self._place(lane)
            except RayError as error:
                raise HostFailedError(f"{lane.name} could not be started: {_short(error)}") from None

    def _place(self, lane: _Lane) -> Place:
        place = self._value(ray.get(lane.actor.ready.remote(), timeout=START_TIMEOUT_S))
        assert isinstance(place, Place)
        return place

    def _value(self, answer: Any) -> Any:
        """An actor's answer, unless it is an error inside a call."""
        if isinstance(answer, CallFailed):
            raise self._failed(answer.error)
        return answer

    def _await(self, lane: _Lane, pending: Pending) -> Done:
        while pending.done is None:
            if self._failure is not None:
                raise self._failure
            for other in self._all:
                if other.ref is None and other.queue.waiting:
                    self._send(other)
            self._collect(self._first_ready(lane))
        return pending.done

    def _first_ready(self, wanted: _Lane) -> _Lane:
        """Block until a batch is done: the wanted host's, or one of a host that has more to do."""
        lanes = {
            lane.ref: lane for lane in self._all if lane.ref is not None and (lane is wanted or lane.queue.waiting)
        }
        if len(lanes) == 1:
            return wanted
        ready, _ = ray.wait(list(lanes), num_returns=1)
        return lanes[ready[0]]

    def _relieve(self, lane: _Lane, *, at_once: bool) -> None:
        """Send before anybody asks: a free host's call at once if it is a batch already, or a queue that gets long."""
        is_long = len(lane.queue.waiting) >= MAX_WAITING
        try:
            if is_long and lane.ref is not None and ray.wait([lane.ref], timeout=0)[0]:
                self._collect(lane)
            if lane.ref is None and lane.queue.waiting and (at_once or is_long):
                self._send(lane)
        except Exception as error:
            self._failed(error)  # the next promise raises it

    def _send(self, lane: _Lane) -> None:
        self._execute(lane, lane.queue.depart(), 0)

    def _execute(self, lane: _Lane, calls: Sequence[Call], num_known: int) -> None:
        self.num_calls += len(calls)
        self.num_batches += 1
        lane.ref = lane.actor.execute.remote(calls, num_known)

    def _collect(self, lane: _Lane) -> None:
        """Take the results of the batch in flight, blocking until they are there, and send the next."""
        try:
            results = self._value(ray.get(lane.ref))
        except RayTaskError as error:
            raise self._failed(HostFailedError(f"{lane.name}: {_short(error)}")) from error
        except RayError as error:
            self._lost(lane, error)
            return
        lane.ref = None
        lane.queue.arrive(results)
        if lane.queue.waiting:
            self._send(lane)

    def _lost(self, lane: _Lane, error: RayError) -> None:
        """A host is gone with the state of its sessions: start another and repeat their calls, or give up."""
        what = f"{lane.name} ({lane.place}) was lost: {_short(error)}"
        if not self._replay:
            advice = "set execution.on_failure to replay to go on after such a loss"
            raise self._failed(HostFailedError(f"{what}; the run can't go on without it ({advice})"))
        if lane.num_restarts == MAX_RESTARTS:
            times = "1 time" if MAX_RESTARTS == 1 else f"{MAX_RESTARTS} times"
            raise self._failed(HostFailedError(f"{what}; it was started again {times} before"))
        lane.num_restarts += 1
        self._start_again(lane)
        self._execute(lane, *lane.queue.again())

    def _start_again(self, lane: _Lane) -> None:
        """A fresh host. Until a lost node is known to be lost, Ray may try to start it there: so try for a while."""
        give_up = time.monotonic() + START_TIMEOUT_S
        while True:
            self._cluster.end(lane.actor)
            lane.actor = create_host(lane.spec)
            try:
                lane.place = self._place(lane)
                return
            except RayError as error:
                if time.monotonic() > give_up:
                    what = f"{lane.name} was lost and could not be started again: {_short(error)}"
                    raise self._failed(HostFailedError(what)) from None
                time.sleep(RETRY_PAUSE_S)

    def _failed(self, error: Exception) -> Exception:
        """Remember the first failure: it is what every later promise raises."""
        if self._failure is None:
            self._failure = error
        return self._failure


class _Cluster:
    """Joins `address`, or without one starts Ray on this machine for `max_hosts` hosts at most.

    Where this process is connected already, that connection is used and stays. Raises ScenarioError for an address
    that can't be joined.
    """

    def __init__(self, address: str | None, *, max_hosts: int) -> None:
        self._connected_here = not ray.is_initialized()
        self._closed = False
        if self._connected_here and address is None:
            _start_local(max(2, min(usable_cpus(), max_hosts)))
        elif self._connected_here:
            check_address(str(address))
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.num_cpus = float(resources.get("CPU", 0))
        self.num_gpus = float(resources.get("GPU", 0))

    def end(self, actor: Any) -> None:
        """Kill an actor, if there is one and Ray is still there."""
        if actor is not None and not self._closed:
            with suppress(Exception):
                ray.kill(actor)

    def close(self) -> None:
        """Leave: what was started here ends, a joined cluster stays. Safe to call twice."""
        if self._connected_here and not self._closed:
            ray.shutdown()
        self._closed = True


def _start_local(num_cpus: int) -> None:
    """Ray with no dashboard, on as many of its CPUs as hosts can use: it keeps a process ready for each."""
    keep_token()
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
    )


def _short(error: Exception) -> str:
    """What happened, in a line: Ray's own texts run over dozens, the cause comes last."""
    if isinstance(error, GetTimeoutError):
        return f"no answer within {START_TIMEOUT_S:.0f} s; has the cluster room for it?"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = lines[-1].split(" Some common causes", maxsplit=1)[0] if lines else ""
    return f"{type(error).__name__}: {cause[:MAX_CAUSE_CHARS]}"
