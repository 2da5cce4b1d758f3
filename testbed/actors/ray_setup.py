"""What has to be right around Ray before it is started or joined; Ray itself is not imported here."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.core.errors import ScenarioError

_CONNECT_TIMEOUT_S = 5.0
_PROBE_TIMEOUT_S = 30.0
_ADDRESSES = "HOST:PORT of a cluster's head with a node on this machine, or auto"
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Notices of lost workers and nodes, which Ray prints to standard output: we say what they meant for the run.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed|Raylet is terminated|has been marked dead",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a notice about hosts without a GPU
}
_PROBE = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
except Exception as error:
    sys.exit("PROBE " + " ".join(str(error).split()))
"""


def host_counts(edge_hosts: int, cloud_hosts: int, *, num_cpus: float, num_gpus: float) -> tuple[int, int]:
    """How many edge and cloud actors a cluster gets of those asked for: one of each, and no more than it has cores.

    Where not all fit, both roles get the same share, edges the odd one. With GPUs every cloud host has one to itself.
    """
    room = max(2, int(num_cpus))
    if num_gpus > 0:
        cloud_hosts = min(cloud_hosts, max(1, int(num_gpus)))
    clouds = min(cloud_hosts, max(room // 2, room - edge_hosts))
    return min(edge_hosts, room - clouds), clouds


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits: a second one must not leave processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous if previous is not None else signal.SIG_DFL)


def be_quiet() -> None:
    """No usage reports and no notices, in this process and what it starts."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def keep_token() -> None:
    """For a Ray of our own that others on this machine stay out of.

    Ray asks for a token by itself, unless RAY_AUTH_MODE says otherwise, and would write one to the home folder.
    """
    has_file = (Path.home() / ".ray" / "auth_token").exists()
    if not has_file and not os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def check_address(address: str) -> None:
    """Raise ScenarioError, within seconds, for an address at which no cluster lets us in."""
    if address != "auto":
        _check_reachable(address)
    _probe(address)


def _check_reachable(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdigit():
        raise ScenarioError("no address of a Ray cluster", path="--address", value=address, allowed=_ADDRESSES)
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ScenarioError(
            f"no Ray cluster can be reached there: {error}", path="--address", value=address, allowed=_ADDRESSES
        ) from None


def _probe(address: str) -> None:
    """Connect from a process that can be ended: Ray itself blocks for minutes where something else answers."""
    command = [sys.executable, "-c", _PROBE, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        problem = f"what answers there is no Ray cluster, or did not let us in within {_PROBE_TIMEOUT_S:.0f} s"
    else:
        if done.returncode == 0:
            return
        said = [line.removeprefix("PROBE ") for line in done.stderr.splitlines() if line.startswith("PROBE ")]
        problem = f"the Ray cluster can't be joined: {said[0] if said else f'exit status {done.returncode}'}"
    raise ScenarioError(problem, path="--address", value=address, allowed=_ADDRESSES)


def usable_cpus() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
