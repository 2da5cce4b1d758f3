"""Processes that tests start: which of them are still there."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import psutil

MARK = "TESTBED_TEST"  # in the environment of what a test starts


def wait_until_gone(pids: list[int], timeout_s: float = 15.0) -> list[int]:
    """Those of `pids` that still run after the timeout, at best none."""
    deadline = time.monotonic() + timeout_s
    while (left := [pid for pid in pids if _runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def marked(mark: str) -> list[int]:
    """Processes, other than this one, whose environment carries the mark."""
    return [
        process.pid
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _environ(process).get(MARK) == mark
    ]


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _environ(process: psutil.Process) -> Mapping[str, str]:
    try:
        return process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return {}
