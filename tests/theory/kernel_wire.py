"""A near end, a router and a far end in network namespaces; the kernel's token bucket shapes what leaves the router.

Runs inside a user namespace of its own (see `kernel_tcp`). The wires are a process that moves packets between TUN
devices and holds each for the delay between router and far end: that needs no netem in the kernel. The bucket is not
the sender's own, since Linux lets no connection fill the queue of its own host. Wire, sender and reader may have to
wait for a core of a busy machine, and the connection with them; Linux counts that time for each.
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
from pathlib import Path
from typing import NamedTuple

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 1, 0x1000
_LIBC = ctypes.CDLL(None, use_errno=True)
_NEAR, _LEFT, _RIGHT, _FAR = "10.99.1.1", "10.99.1.2", "10.99.2.2", "10.99.2.1"
_NEAR_NET, _FAR_NET = "10.99.1.0/24", "10.99.2.0/24"
_PORT = 5001
_CHUNK = 1 << 20
_REST_S = 0.02
_TOTAL_RETRANS = 100  # where struct tcp_info has it
_SYSCTL = {
    "ip_forward": "1",
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
        Path(f"/proc/sys/net/ipv4/{key}").write_text(value, encoding="ascii")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    _tool("ip", "address", "add", f"{address}/24", "dev", name)
    _tool("ip", "link", "set", name, "mtu", "1500", "gso_max_segs", "1", "txqueuelen", "10000", "up")
    return device


def _shape(name: str, rate_bps: int, burst_bytes: int, queue_bytes: int) -> None:
    _tool(
        *("tc", "qdisc", "replace", "dev", name, "root", "tbf"),
        *("rate", f"{rate_bps}bit", "burst", f"{burst_bytes}b", "limit", f"{queue_bytes}"),
    )


def _wire(near: int, left: int, right: int, far: int, delay_ns: int) -> None:
    """Packets pass between near end and router at once, between router and far end after the delay, for ever."""
    under_way: deque[tuple[int, int, bytes]] = deque()
    at_once, delayed = {near: left, left: near}, {right: far, far: right}
    while True:
        wait_s = max(0, under_way[0][0] - time.monotonic_ns()) / 1e9 if under_way else None
        for device in select.select((near, left, right, far), (), (), wait_s)[0]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet = os.read(device, 2048)
                    if device in at_once:
                        os.write(at_once[device], packet)
                    else:
                        under_way.append((time.monotonic_ns() + delay_ns, delayed[device], packet))
        while under_way and under_way[0][0] <= time.monotonic_ns():
            _, device, packet = under_way.popleft()
            os.write(device, packet)


def _devices(rate_bps: int, burst_bytes: int, queue_bytes: int) -> tuple[int, int, int, int]:
    """Both ends' and the router's, each namespace made for it; the far end's becomes the present one."""
    near = _end("near", _NEAR)
    _tool("ip", "route", "add", _FAR_NET, "dev", "near")
    _call("unshare", _CLONE_NEWNET)
    left, right = _end("left", _LEFT), _end("right", _RIGHT)
    for name in ("left", "right"):
        _shape(name, rate_bps, burst_bytes, queue_bytes)
    _call("unshare", _CLONE_NEWNET)
    far = _end("far", _FAR)
    _tool("ip", "route", "add", _NEAR_NET, "dev", "far")
    return near, left, right, far


class Timing(NamedTuple):
    """One transfer over a connection of its own."""

    connect_ns: int
    whole_ns: int  # from the opening of the connection to the last byte read at the other end
    waited_ns: int  # for a core, of the wire, the sender and the reader together
    num_repeats: int  # segments sent again


def _waited_ns(task: int | str) -> int:
    """How long a process or thread was ready to run and did not, ever."""
    return int(Path(f"/proc/{task}/schedstat").read_text(encoding="ascii").split()[1])


def _transfer(listener: socket.socket, size_bytes: int, congestion: str, wire: int) -> Timing:
    read: list[tuple[int, int]] = []

    def receive() -> None:
        connection, _ = listener.accept()
        with connection:
            missing = size_bytes
            while missing:
                missing -= len(connection.recv(min(missing, _CHUNK)))
            read.append((time.monotonic_ns(), _waited_ns("thread-self")))

    payload = bytes(size_bytes)
    reader = threading.Thread(target=receive)
    reader.start()
    with socket.socket() as sender:
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        earlier_ns = _waited_ns("self") + _waited_ns(wire)
        started_ns = time.monotonic_ns()
        sender.connect((_FAR, _PORT))
        connected_ns = time.monotonic_ns()
        sender.sendall(payload)
        reader.join()
        (num_repeats,) = struct.unpack_from(
            "I", sender.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), _TOTAL_RETRANS
        )
    ended_ns, reader_ns = read[0]
    waited_ns = _waited_ns("self") + _waited_ns(wire) - earlier_ns + reader_ns
    return Timing(connected_ns - started_ns, ended_ns - started_ns, waited_ns, num_repeats)


def measure(
    *,
    rate_bps: int,
    burst_bytes: int,
    queue_bytes: int,
    delay_ns: int,
    sizes: list[int],
    congestion: str,
    repetitions: int,
) -> dict[int, list[Timing]]:
    """Transfers by size; the sizes take turns, so that a busy moment of the machine hits all of them."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    devices = _devices(rate_bps, burst_bytes, queue_bytes)
    found: dict[int, list[Timing]] = {size: [] for size in sizes}
    with socket.create_server((_FAR, _PORT)) as listener:
        _call("setns", here, _CLONE_NEWNET)
        wire = os.fork()
        if not wire:
            _wire(*devices, delay_ns)
        try:
            for size in sizes * repetitions:
                time.sleep(_REST_S + 4 * delay_ns / 1e9)  # the connection before is closed, the buckets are full
                found[size].append(_transfer(listener, size, congestion, wire))
        finally:
            os.kill(wire, signal.SIGKILL)
            os.waitpid(wire, 0)
    return found


if __name__ == "__main__":
    try:
        print(json.dumps(measure(**json.loads(sys.argv[1]))))
    except OSError as error:
        sys.exit(f"{error}")
