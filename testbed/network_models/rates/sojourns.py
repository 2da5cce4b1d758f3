"""A process that stays in one state, then in another: any instant can be asked for, in any order."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

_STRIDE = 32  # sojourns between two that are kept


class Sojourn(NamedTuple):
    """The state at an instant, and until when, exclusive."""

    state: int
    end_ns: int


class Sojourns:
    """Sojourn number i, in state s, is `draw(i, s)`: its duration, at least 1 ns, and the state after it.

    Draws are keyed, so a sojourn comes out alike whenever it is drawn: of those passed only every 32nd is kept, 16
    bytes each, and the ones between are drawn again when they are asked for.
    """

    __slots__ = ("_begin_ns", "_draw", "_end_ns", "_ends", "_kept_starts", "_kept_states", "_states")

    def __init__(self, first_state: int, draw: Callable[[int, int], tuple[int, int]]) -> None:
        self._draw = draw
        self._kept_starts = array("q", [0])
        self._kept_states = array("q", [first_state])
        self._begin_ns = self._end_ns = 0  # of the run of sojourns at hand
        self._ends: list[int] = []
        self._states: list[int] = []

    def at(self, time_ns: int) -> Sojourn:
        if not self._begin_ns <= time_ns < self._end_ns:
            self._reach(time_ns)
        index = bisect_right(self._ends, time_ns)
        return Sojourn(self._states[index], self._ends[index])

    def _reach(self, time_ns: int) -> None:
        run = bisect_right(self._kept_starts, time_ns) - 1
        self._take(run)
        while time_ns >= self._end_ns:
            run += 1
            self._take(run)

    def _take(self, run: int) -> None:
        now_ns, state = self._kept_starts[run], self._kept_states[run]
        self._begin_ns = now_ns
        self._ends, self._states = [], []
        for number in range(run * _STRIDE, (run + 1) * _STRIDE):
            duration_ns, following = self._draw(number, state)
            now_ns += duration_ns
            self._ends.append(now_ns)
            self._states.append(state)
            state = following
        self._end_ns = now_ns
        if run + 1 == len(self._kept_starts):
            self._kept_starts.append(now_ns)
            self._kept_states.append(state)
