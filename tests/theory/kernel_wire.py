"""Two network namespaces with a wire of a chosen delay between them, each end shaped by the kernel's token bucket.

Runs inside a user namespace of its own (see `kernel_tcp`). The wire is a process that moves packets between two TUN
devices and holds each for the delay: that needs no netem in the kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 1, 0x1000
_LIBC = ctypes.CDLL(None, use_errno=True)
_ADDRESSES = ("10.99.0.1", "10.99.0.2")
_PORT = 5001
_CHUNK = 1 << 20
_SYSCTL = {
    "tcp_timestamps": "0",  # headers of 40 bytes, as the model has
    "tcp_no_metrics_save": "1",  # each connection starts afresh
    "tcp_rmem": "4096 16777216 33554432",  # windows never hold the sender back
    "tcp_wmem": "4096 16777216 33554432",
}


def _tool(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")


def _call(name: str, *arguments: int) -> None:
    if getattr(_LIBC, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _end(name: str, address: str) -> int:
    """A TUN device in the present namespace; its file."""
    for key, value in _SYSCTL.items():
        with open(f"/proc/sys/net/ipv4/{key}", "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(value)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    _tool("ip", "address", "add", f"{address}/24", "dev", name)
    _tool("ip", "link", "set", name, "mtu", "1500", "gso_max_segs", "1", "txqueuelen", "10000", "up")
    return device


def _shape(name: str, rate_bps: int, burst_bytes: int) -> None:
    _tool(
        *("tc", "qdisc", "replace", "dev", name, "root", "tbf"),
        *("rate", f"{rate_bps}bit", "burst", f"{burst_bytes}b", "limit", "20000000"),
    )


def _wire(devices: tuple[int, int], delay_ns: int) -> None:
    """Every packet that comes out of one device goes into the other after the delay, for ever."""
    under_way: deque[tuple[int, int, bytes]] = deque()
    other = {devices[0]: devices[1], devices[1]: devices[0]}
    while True:
        wait_s = max(0, under_way[0][0] - time.monotonic_ns()) / 1e9 if under_way else None
        for device in select.select(devices, (), (), wait_s)[0]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    under_way.append((time.monotonic_ns() + delay_ns, other[device], os.read(device, 2048)))
        while under_way and under_way[0][0] <= time.monotonic_ns():
            _, device, packet = under_way.popleft()
            os.write(device, packet)


def _transfer_ns(listener: socket.socket, size_bytes: int, congestion: str) -> tuple[int, int]:
    """How long connect() takes, and from its start to the last byte read at the other end; a connection of its own."""
    ended_ns: list[int] = []

    def read() -> None:
        connection, _ = listener.accept()
        with connection:
            missing = size_bytes
            while missing:
                missing -= len(connection.recv(min(missing, _CHUNK)))
            ended_ns.append(time.monotonic_ns())

    reader = threading.Thread(target=read)
    reader.start()
    with socket.socket() as sender:
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        started_ns = time.monotonic_ns()
        sender.connect((_ADDRESSES[1], _PORT))
        connected_ns = time.monotonic_ns()
        sender.sendall(bytes(size_bytes))
        reader.join()
    return connected_ns - started_ns, ended_ns[0] - started_ns


def measure(
    *, rate_bps: int, burst_bytes: int, delay_ns: int, sizes: list[int], congestion: str, repetitions: int
) -> dict[int, list[tuple[int, int]]]:
    """Times in ns of connecting and of the whole transfer, by size."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    near = _end("near", _ADDRESSES[0])
    _shape("near", rate_bps, burst_bytes)
    _call("unshare", _CLONE_NEWNET)
    far = _end("far", _ADDRESSES[1])
    _shape("far", rate_bps, burst_bytes)
    with socket.create_server((_ADDRESSES[1], _PORT)) as listener:
        _call("setns", here, _CLONE_NEWNET)
        wire = os.fork()
        if not wire:
            _wire((near, far), delay_ns)
        try:
            return {size: [_transfer_ns(listener, size, congestion) for _ in range(repetitions)] for size in sizes}
        finally:
            os.kill(wire, signal.SIGKILL)
            os.waitpid(wire, 0)


if __name__ == "__main__":
    try:
        print(json.dumps(measure(**json.loads(sys.argv[1]))))
    except OSError as error:
        sys.exit(f"{error}")
