"""Yardsticks: figures of plain building blocks, measured in the same run, that a benchmark's figure is read against.

A rate alone says as much about the machine and its neighbours as about the program; its ratio to a yardstick does not.
"""

from __future__ import annotations

import time
from collections.abc import Generator

import simpy

REPEATS = 3


def simpy_timeouts_per_cpu_s(num_processes: int = 1, num_timeouts: int = 200_000) -> float:
    """Bare SimPy: timeouts handled per second of CPU time, best of three, with so many processes waiting at a time."""
    return max(_rate(num_processes, num_timeouts) for _ in range(REPEATS))


def _rate(num_processes: int, num_timeouts: int) -> float:
    env = simpy.Environment()
    each = max(1, num_timeouts // num_processes)
    for number in range(num_processes):
        env.process(_sleeper(env, each, period=1 + number % 7))
    start_s = time.process_time()
    env.run()
    return each * num_processes / (time.process_time() - start_s)


def _sleeper(env: simpy.Environment, num_timeouts: int, period: int) -> Generator[simpy.Event, None, None]:
    for _ in range(num_timeouts):
        yield env.timeout(period)
