"""Events at a known delay, placed on SimPy's heap once and without a process."""

from __future__ import annotations

from collections.abc import Callable

import simpy
from simpy.events import NORMAL, URGENT


class Delivery(simpy.Event):
    """What a sender waits for. `settle` is called once, when the end of the transfer is known."""

    def settle(self, value: object, delay_ns: int) -> None:
        """Succeed with `value` after `delay_ns`."""
        self._ok = True
        self._value = value
        self.env.schedule(self, NORMAL, delay_ns)


class Timer(simpy.Event):
    """Calls back after `delay_ns`, ahead of everything of normal priority at that instant."""

    def __init__(self, env: simpy.Environment, delay_ns: int, callback: Callable[[simpy.Event], None]) -> None:
        self.env = env
        self.callbacks = [callback]
        self._ok = True
        self._value = None
        env.schedule(self, URGENT, delay_ns)
