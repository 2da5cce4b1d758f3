"""Autoscalers at work: they look at their group of servers every interval, and start servers or take some away.

The law of when and how many is testbed/schedulers/autoscaling.py. Which ones [our own design]: more means, first,
draining servers taken back, by number, then those that are off and not broken, by number; fewer means, first, starting
ones given up, the highest number first, then up ones drained, those with the fewest outstanding requests first, the
highest number among equals. Servers that are down do not count as running: others are started in their stead, and once
repaired they are too many or not, as the next look finds.
"""

from __future__ import annotations

from collections.abc import Sequence

import simpy

from testbed.core.events import EventSink, ServersScaled
from testbed.scenarios.cluster import Autoscale
from testbed.scenarios.schema import Scenario
from testbed.schedulers.autoscaling import Autoscaler, GroupLoad
from testbed.sim.cluster import Cluster
from testbed.sim.kernel import Clock, Rank
from testbed.sim.slo_watch import SloWatch
from testbed.sim.slots import SERVING, ServerState, Slot

RUNNING = (ServerState.UP, ServerState.STARTING)


class GroupScaler:
    """One group's; `group` is its index among the scenario's entries."""

    def __init__(
        self,
        clock: Clock,
        cluster: Cluster,
        group: int,
        *,
        name: str,
        config: Autoscale,
        slo: SloWatch | None,
        emit: EventSink,
    ) -> None:
        self._clock = clock
        self._cluster = cluster
        self._group = group
        self._name = name
        self._config = config
        self._slots: Sequence[Slot] = [slot for slot in cluster.slots if slot.group == group]
        self._slo = slo
        self._emit = emit
        self._autoscaler = Autoscaler(config)
        self._busy_ns = self._serving_ns = 0  # until the last look
        self._await_look()

    def _await_look(self) -> None:
        due = self._clock.at(self._config.interval, Rank.SCALING, self._group)
        assert due.callbacks is not None, "it lies ahead"
        due.callbacks.append(self._look)

    def _look(self, _: simpy.Event) -> None:
        load = self._load()
        order = self._autoscaler.order(load, self._clock.now_ns)
        if order is not None:
            self._change(order.num_servers - load.num_servers)
            num_after = len(self._in(RUNNING))
            if num_after != load.num_servers:
                self._emit(
                    ServersScaled(
                        time_ns=self._clock.now_ns,
                        group=self._name,
                        num_before=load.num_servers,
                        num_after=num_after,
                        why=order.why,
                    )
                )
        self._await_look()

    def _load(self) -> GroupLoad:
        now_ns, running = self._clock.now_ns, self._in(RUNNING)
        busy_ns = sum(slot.server.busy.until(now_ns) for slot in self._slots)
        serving_ns = sum(slot.time_ns(SERVING, now_ns) for slot in self._slots)
        num_ended, num_missed = (0, 0) if self._slo is None else self._slo.take(self._group)
        load = GroupLoad(
            num_servers=len(running),
            num_outstanding=sum(slot.server.num_outstanding for slot in running) + self._cluster.num_held(self._group),
            busy_ns=busy_ns - self._busy_ns,
            serving_ns=serving_ns - self._serving_ns,
            num_ended=num_ended,
            num_missed=num_missed,
        )
        self._busy_ns, self._serving_ns = busy_ns, serving_ns
        return load

    def _change(self, difference: int) -> None:
        for slot in self._to_start()[: max(0, difference)]:
            self._cluster.start(slot, self._config.cold_start)
        for slot in self._to_stop()[: max(0, -difference)]:
            self._cluster.stop(slot)

    def _to_start(self) -> list[Slot]:
        now_ns = self._clock.now_ns
        off = [slot for slot in self._in((ServerState.OFF,)) if not slot.is_broken(now_ns)]
        return [*self._in((ServerState.DRAINING,)), *off]

    def _to_stop(self) -> list[Slot]:
        starting = self._in((ServerState.STARTING,))[::-1]
        up = sorted(self._in((ServerState.UP,)), key=lambda slot: (slot.server.num_outstanding, -slot.number))
        return [*starting, *up]

    def _in(self, states: Sequence[ServerState]) -> list[Slot]:
        return [slot for slot in self._slots if slot.state in states]


def start_scalers(
    clock: Clock, scenario: Scenario, cluster: Cluster, slo: SloWatch | None, emit: EventSink
) -> list[GroupScaler]:
    """One for every group that has one."""
    return [
        GroupScaler(clock, cluster, index, name=group.name, config=group.autoscale, slo=slo, emit=emit)
        for index, group in enumerate(scenario.servers)
        if group.autoscale is not None
    ]
