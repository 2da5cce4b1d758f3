"""A server's place in the cluster: whether it runs, what the router believes of it, and how long it was what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from testbed.network_models.rates.segments import FOREVER
from testbed.network_models.topology.failures import Failures
from testbed.sim.server import Server


class ServerState(StrEnum):
    """OFF: not there, costs nothing. STARTING and DRAINING cost, and get no requests; a DRAINING one has some left."""

    OFF = "off"
    STARTING = "starting"
    UP = "up"
    DRAINING = "draining"
    DOWN = "down"


COSTING = (ServerState.STARTING, ServerState.UP, ServerState.DRAINING)
SERVING = (ServerState.UP, ServerState.DRAINING)


@dataclass(slots=True, kw_only=True, eq=False)
class Slot:
    """One server id. `is_offered`: the router believes that it takes requests. `turn` counts changes of state."""

    server: Server
    group: int  # index among the scenario's entries
    failures: Failures | None
    state: ServerState
    is_offered: bool
    is_scaled: bool  # an autoscaler may start it
    turn: int = 0
    num_failures: int = 0
    _since_ns: int = 0
    _times_ns: dict[ServerState, int] = field(default_factory=lambda: dict.fromkeys(ServerState, 0))

    @property
    def number(self) -> int:
        return self.server.server

    def enter(self, state: ServerState, now_ns: int) -> None:
        """It is in another state from now on."""
        self._times_ns[self.state] += now_ns - self._since_ns
        self._since_ns = now_ns
        self.state = state
        self.turn += 1

    def time_ns(self, states: Iterable[ServerState], now_ns: int) -> int:
        """Spent in these states until now."""
        past_ns = sum(self._times_ns[state] for state in states)
        return past_ns + (now_ns - self._since_ns if self.state in states else 0)

    def is_broken(self, now_ns: int) -> bool:
        """Whether it is down, or would be if it ran."""
        return self.failures is not None and self.failures.is_down(now_ns)

    def may_come(self, now_ns: int) -> bool:
        """Whether it may take requests some time from now on."""
        if self.is_broken(now_ns):
            assert self.failures is not None, "it is broken"
            if self.failures.next_change_ns(now_ns) >= FOREVER:
                return False
        return self.is_scaled or self.state is not ServerState.OFF
