"""The processes of an emulated run: started anew, told by a pipe, gone with the one that started them.

Each is a fresh interpreter (`spawn`). A child that finds its pipe closed ends, so none outlives its parent, however
that ends; an interrupt from the keyboard is the parent's to handle.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from typing import Any

from testbed.command import quiet_libraries
from testbed.core.errors import HostFailedError, TestbedError
from testbed.studies.local.frames import Kind, pack
from testbed.studies.local.plan import DevicesPlan, ServerPlan
from testbed.studies.local.wire import now_ns

_PATIENCE_S = 120.0  # for a process to load its shards
_GRACE_S = 5.0
_TURN_S = 0.2
Body = Callable[[Pipe], None]


@dataclass(slots=True, kw_only=True)
class Worker:
    """A process and the pipe to it."""

    name: str
    process: Any
    pipe: Pipe

    def tell(self, message: Any) -> None:
        try:
            self.pipe.send(message)
        except OSError:
            raise HostFailedError(f"the {self.name} process is gone") from None

    def answer(self, timeout_s: float = _PATIENCE_S) -> Any:
        """What it says next. Raises HostFailedError where it ended, said why, or says nothing for so long."""
        ready = wait([self.pipe, self.process.sentinel], timeout_s)
        if not ready:
            raise HostFailedError(f"the {self.name} process has not answered for {timeout_s:g} s")
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            raise HostFailedError(f"the {self.name} process ended, exit code {self.process.exitcode}") from None
        if isinstance(answer, _Failed):
            raise HostFailedError(f"the {self.name} process failed: {answer.why}")
        return answer


@dataclass(frozen=True, slots=True)
class _Failed:
    why: str


@contextmanager
def workers(bodies: Mapping[str, Body]) -> Iterator[dict[str, Worker]]:
    """Processes by name, each running ``body(pipe)`` on a core of its own; all are gone when the block is left."""
    context = multiprocessing.get_context("spawn")
    running: dict[str, Worker] = {}
    try:
        for core, (name, body) in enumerate(bodies.items()):
            ours, theirs = context.Pipe()
            process = context.Process(target=_child, args=(body, theirs, core), name=f"testbed-{name}", daemon=True)
            process.start()
            theirs.close()
            running[name] = Worker(name=name, process=process, pipe=ours)
        yield running
    finally:
        for worker in running.values():
            worker.pipe.close()
        for worker in running.values():
            _end(worker.process)


def _end(process: Any) -> None:
    process.join(0.2)
    if process.is_alive():
        process.terminate()
        process.join(_GRACE_S)
    if process.is_alive():
        process.kill()
        process.join()


def _child(body: Body, pipe: Pipe, core: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet_libraries()
    _stay_on(core)
    try:
        body(pipe)
    except (EOFError, BrokenPipeError):
        pass  # nobody is left to answer to
    except TestbedError as error:
        pipe.send(_Failed(str(error)))
    except Exception as error:  # the parent reports it, in one line
        pipe.send(_Failed(f"{type(error).__name__}: {error}"))


def _stay_on(core: int) -> None:
    """Keep to one core, where the system lets us."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)]})


def serve(pipe: Pipe) -> None:
    """The server's process. For each plan: says its port, serves until it is told to stop, says how it fared."""
    from testbed.studies.local.back_server import BackServer  # noqa: PLC0415 - loads torch, in the child only
    from testbed.studies.local.warm import warm_back  # noqa: PLC0415

    while True:
        plan: ServerPlan = pipe.recv()
        listener = socket.create_server(("127.0.0.1", 0))
        server = BackServer(plan, listener)
        try:
            warm_back(server, plan)
            pipe.send(listener.getsockname()[1])
            while not pipe.poll():
                server.turn(_TURN_S)
            pipe.recv()
        finally:
            server.close()
        pipe.send((server.busy_ns, server.num_iterations))


def emulate_devices(pipe: Pipe) -> None:
    """A process of devices. For each plan: learns the port, starts when told, says how each request fared."""
    from testbed.studies.local.front_devices import FrontDevices  # noqa: PLC0415 - loads torch, in the child only
    from testbed.studies.local.warm import warm_front  # noqa: PLC0415

    while True:
        plan: DevicesPlan = pipe.recv()
        port = pipe.recv()
        devices = FrontDevices(plan, [_connected(port, planned.device, plan.secret) for planned in plan.devices])
        try:
            warm_front(devices, plan)
            pipe.send("ready")
            devices.start(pipe.recv())
            while devices.num_left:
                devices.turn(_TURN_S)
                if pipe.poll():
                    pipe.recv()  # it has closed: ends this process
        finally:
            devices.close()
        pipe.send((devices.timings(), devices.busy_ns))


def _connected(port: int, device: int, secret: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(pack(Kind.HELLO, device, now_ns(), secret))
    return sock
