"""How many requests missed the SLO, by the group that they were sent to: what an autoscaler may go by."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.core.events import Event, EventSink, Outcome, RequestAdmitted, RequestArrived, RequestEnded, TokenDelivered
from testbed.scenarios.schema import Scenario, Slo

_NOBODY = -1


@dataclass(slots=True)
class _Seen:
    """What is known of a request so far."""

    arrival_ns: int
    group: int = _NOBODY
    first_ns: int = 0
    last_ns: int = 0
    num_tokens: int = 0


class SloWatch:
    """Passes a run's events on and counts requests that end; a good one completed within both limits (docs/metrics.md).

    A request that never got to a server counts for no group.
    """

    def __init__(self, slo: Slo, group_of: list[int], emit: EventSink) -> None:
        self._slo = slo
        self._group_of = group_of  # by server
        self._emit = emit
        self._seen: dict[int, _Seen] = {}
        self._num_ended: dict[int, int] = {}
        self._num_missed: dict[int, int] = {}

    def __call__(self, event: Event) -> None:
        self._emit(event)
        match event:
            case RequestArrived():
                self._seen[event.request] = _Seen(event.time_ns)
            case RequestAdmitted() if event.server >= 0:
                self._seen[event.request].group = self._group_of[event.server]
            case TokenDelivered():
                seen = self._seen[event.request]
                seen.first_ns = event.time_ns if not seen.num_tokens else seen.first_ns
                seen.last_ns = event.time_ns
                seen.num_tokens += 1
            case RequestEnded():
                self._count(self._seen.pop(event.request), event.outcome)

    def take(self, group: int) -> tuple[int, int]:
        """Requests of the group that ended since this was asked last, and those of them that missed."""
        return self._num_ended.pop(group, 0), self._num_missed.pop(group, 0)

    def _count(self, seen: _Seen, outcome: Outcome) -> None:
        if seen.group == _NOBODY:
            return
        within = (
            seen.first_ns - seen.arrival_ns <= self._slo.ttft
            and seen.last_ns - seen.first_ns <= (seen.num_tokens - 1) * self._slo.tpot
        )
        self._num_ended[seen.group] = self._num_ended.get(seen.group, 0) + 1
        if outcome is not Outcome.COMPLETED or not within:
            self._num_missed[seen.group] = self._num_missed.get(seen.group, 0) + 1


def slo_watch_of(scenario: Scenario, emit: EventSink) -> SloWatch | None:
    """Where an autoscaler goes by the SLO."""
    if not any(group.autoscale is not None and group.autoscale.signal == "slo" for group in scenario.servers):
        return None
    assert scenario.slo is not None, "checked before the run"
    group_of = [index for index, group in enumerate(scenario.servers) for _ in range(group.num_workers)]
    return SloWatch(scenario.slo, group_of, emit)
