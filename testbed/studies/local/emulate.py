"""One scenario for real: real shards in separate processes, real sockets between them, the machine's own clock."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from testbed.actors.memory import free_bytes, server_weights_bytes
from testbed.run import Prepared, host_spec
from testbed.studies.local.frames import SECRET_BYTES
from testbed.studies.local.plan import (
    DevicesPlan,
    ServerPlan,
    Timing,
    planned_devices,
    planned_requests,
)
from testbed.studies.local.processes import Worker, emulate_devices, serve, workers
from testbed.studies.local.wire import now_ns

_HEAD_START_NS = 200_000_000  # for all processes to be waiting when the clock begins
_MOST_S = 600.0
_WEIGHT_BITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulated:
    """What came of it, and how busy the processes were."""

    timings: tuple[Timing, ...]
    server_busy_ns: int
    device_busy_ns: tuple[int, ...]  # of each process of devices
    num_iterations: int


def num_processes(num_devices: int, cores: int | None = None) -> int:
    """Processes of devices: one core is the server's, the others are shared by the devices."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(num_devices, (cores or available) - 1))


def share_of(device: int, processes: int) -> int:
    """The process that emulates a device."""
    return device % processes


class Emulation:
    """Processes that run one scenario after the other; made by `emulation`."""

    def __init__(self, server: Worker, hosts: Sequence[Worker]) -> None:
        self._server = server
        self._hosts = hosts

    @property
    def num_hosts(self) -> int:
        """Processes that emulate devices."""
        return len(self._hosts)

    def run(self, prepared: Prepared) -> Emulated:
        """Run a checked scenario (`check_emulated`) in wall-clock time."""
        server_plan, plans = _plans(prepared, self.num_hosts)
        self._server.tell(server_plan)
        for host, plan in zip(self._hosts, plans, strict=True):
            host.tell(plan)
        port = self._server.answer()
        for host in self._hosts:
            host.tell(port)
        for host in self._hosts:
            host.answer()
        start_ns = now_ns() + _HEAD_START_NS
        for host in self._hosts:
            host.tell(start_ns)
        answers = [host.answer(_MOST_S) for host in self._hosts]
        self._server.tell("stop")
        busy_ns, num_iterations = self._server.answer()
        timings = sorted((timing for found, _ in answers for timing in found), key=lambda timing: timing.request)
        return Emulated(
            timings=tuple(timings),
            server_busy_ns=busy_ns,
            device_busy_ns=tuple(busy for _, busy in answers),
            num_iterations=num_iterations,
        )


@contextmanager
def emulation(num_hosts: int) -> Iterator[Emulation]:
    """A server's process and so many of devices, gone when the block is left."""
    names = [f"devices-{number}" for number in range(num_hosts)]
    with workers({"server": serve, **dict.fromkeys(names, emulate_devices)}) as running:
        yield Emulation(running["server"], [running[name] for name in names])


def _plans(prepared: Prepared, num_hosts: int) -> tuple[ServerPlan, list[DevicesPlan]]:
    spec, devices, requests = host_spec(prepared), planned_devices(prepared), planned_requests(prepared)
    servers, secret = prepared.scenario.servers[0], secrets.token_bytes(SECRET_BYTES)
    splits = {planned.split for planned in devices}
    server = ServerPlan(
        spec=spec,
        servers=servers,
        kv_capacity_bytes=free_bytes(servers.server)
        - server_weights_bytes(prepared.source.shape, splits, _WEIGHT_BITS),
        devices=devices,
        secret=secret,
    )
    plans = [
        DevicesPlan(
            spec=spec,
            devices=tuple(item for item in devices if share_of(item.device, num_hosts) == host),
            requests=tuple(item for item in requests if share_of(item.device, num_hosts) == host),
            secret=secret,
        )
        for host in range(num_hosts)
    ]
    return server, plans
