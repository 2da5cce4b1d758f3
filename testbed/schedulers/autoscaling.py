"""How many servers a group should have: a pure function of what was measured, and a wrapper with bounds and patience.

Every `interval`, from the first one after the run's start on, at the very end of its instant (Rank.SCALING, groups in
the scenario's order), a group's level is measured and compared. All levels and thresholds are whole millionths: a
threshold is rounded to them, a level is rounded down. With r servers that run or are starting (neither draining nor
down):

    signal        level                                                        wanted
    queue         q / r, q outstanding requests of the group's servers that    ceil(q / target)
                  run or are starting, and those held at the router for it
    utilisation   b / s, b nanoseconds that the group's servers computed in    ceil(b / (interval x target))
                  the interval, s that they took part in it, up or draining
    slo           m / e, e requests last sent to the group that ended in the   r + 1 above `up`, r - 1 below `down`
                  interval, m of them not completed within the slo

Above `up` the group wants at least r servers, below `down` at most r, between them r. With nothing to measure (r, s or
e is 0) a queue of q > 0 is above everything, and anything else changes nothing. What is wanted is then kept within
[min, max]. More servers are ordered at once; fewer only when the last order of either kind is `cooldown` ago.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.scenarios.cluster import Autoscale

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLoad:
    """What is known of a group of servers at the end of an interval."""

    num_servers: int  # that run or are starting
    num_outstanding: int
    busy_ns: int  # in the interval, of all its servers
    serving_ns: int
    num_ended: int
    num_missed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How many servers there are to be, and why."""

    num_servers: int
    why: str


def wanted(config: Autoscale, load: GroupLoad) -> Order:
    """What the level asks for, whatever the bounds."""
    if config.signal == "slo":
        return _stepped(config, load)
    part, whole, unit = _measured(config, load)
    target = _millionths(config.target)
    if whole:
        level = part * _MILLION // whole
        up, down = (target if limit is None else _millionths(limit) for limit in (config.up, config.down))
        is_above, is_below = level > up, level < down
    else:
        is_above, is_below = config.signal == "queue" and part > 0, False
    enough = -(-part * _MILLION // (unit * target))
    if is_above:
        return Order(num_servers=max(load.num_servers, enough), why=f"{config.signal} high")
    if is_below:
        return Order(num_servers=min(load.num_servers, enough), why=f"{config.signal} low")
    return Order(num_servers=load.num_servers, why="")


def _measured(config: Autoscale, load: GroupLoad) -> tuple[int, int, int]:
    """The level as a fraction, and what a target of 1 serves, in units of its numerator."""
    if config.signal == "queue":
        return load.num_outstanding, load.num_servers, 1
    return load.busy_ns, load.serving_ns, config.interval


def _stepped(config: Autoscale, load: GroupLoad) -> Order:
    level = load.num_missed * _MILLION // load.num_ended if load.num_ended else None
    if level is not None and level > _millionths(config.up):
        return Order(num_servers=load.num_servers + 1, why="slo missed")
    if level is not None and level < _millionths(config.down):
        return Order(num_servers=load.num_servers - 1, why="slo met")
    return Order(num_servers=load.num_servers, why="")


def _millionths(level: float | None) -> int:
    return 0 if level is None else round(level * _MILLION)


@dataclass(slots=True)
class Autoscaler:
    """The policy within its bounds, which remembers when it ordered last."""

    config: Autoscale
    _last_ns: int | None = None

    def order(self, load: GroupLoad, now_ns: int) -> Order | None:
        """How many servers there are to be from now on; None where nothing changes."""
        asked = wanted(self.config, load)
        bounded = min(max(asked.num_servers, self.config.min), self.config.max)
        if bounded == load.num_servers:
            return None
        if bounded < load.num_servers and self._is_patient(now_ns):
            return None
        self._last_ns = now_ns
        why = asked.why if asked.num_servers != load.num_servers else "fewer than min run"
        return Order(num_servers=bounded, why=why)

    def _is_patient(self, now_ns: int) -> bool:
        return self._last_ns is not None and now_ns - self._last_ns < self.config.cooldown
