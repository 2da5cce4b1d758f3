"""A rate that jumps between states, as a Markov chain in continuous time does."""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.portable import exponential
from testbed.core.rng import probability_u32
from testbed.network_models.origin import Origin
from testbed.network_models.rates.segments import Segment
from testbed.network_models.rates.sojourns import Sojourns
from testbed.scenarios.base import BitRateOrZero, Block, PositiveTimeNs, Probability, as_pydantic
from testbed.scenarios.pieces import RateConfig

_SUM_TOLERANCE = 1e-9
_BEFORE_ALL = (1 << 63) - 1  # number of the draw of the first state

Row = Annotated[tuple[Probability, ...], Field(strict=False)]


class State(Block):
    """A rate, and for how long it lasts in the mean."""

    rate: BitRateOrZero
    mean: PositiveTimeNs


class MarkovRate:
    """States with a rate each, exponential sojourns, and a row of probabilities for what follows.

    The link is found in a state with the probability that the process has in the long run, so that it has no beginning.
    """

    class Config(RateConfig):
        kind: Literal["markov"] = "markov"
        states: Annotated[tuple[State, ...], Field(strict=False, min_length=2)]
        transitions: Annotated[tuple[Row, ...], Field(strict=False)] | None = None  # None: two states take turns

        @model_validator(mode="after")
        def _is_a_chain(self) -> Self:
            count = len(self.states)
            if self.transitions is None and count > 2:  # noqa: PLR2004
                raise _at("transitions", "required key is missing", allowed="without it there are two states")
            if len(self.matrix) != count:
                raise _at("transitions", "not a row for each state", value=len(self.matrix), allowed=f"{count} rows")
            for place, row in enumerate(self.matrix):
                _check_row(place, row, count)
            _check_connected(self.matrix)
            if not any(state.rate for state in self.states):
                raise _at("states", "every rate is 0: nothing could ever be sent")
            return self

        @property
        def matrix(self) -> tuple[tuple[float, ...], ...]:
            return ((0.0, 1.0), (1.0, 0.0)) if self.transitions is None else self.transitions

    __slots__ = ("_entity", "_means_ns", "_next", "_rates", "_sojourn_stream", "_sojourns", "_state_stream")

    def __init__(self, config: Config, origin: Origin) -> None:
        self._rates = [state.rate for state in config.states]
        self._means_ns = [state.mean for state in config.states]
        self._entity = origin.entity
        self._state_stream = origin.stream("rate.state")
        self._sojourn_stream = origin.stream("rate.sojourn")
        self._next, first = _thresholds(config)
        self._sojourns = Sojourns(self._drawn(first, _BEFORE_ALL), self._draw)

    def segment(self, time_ns: int) -> Segment:
        state, end_ns = self._sojourns.at(time_ns)
        return Segment(self._rates[state], end_ns)

    def _draw(self, number: int, state: int) -> tuple[int, int]:
        length = exponential(self._sojourn_stream, self._entity, number)
        return max(1, round(self._means_ns[state] * length)), self._drawn(self._next[state], number)

    def _drawn(self, thresholds: tuple[int, ...], number: int) -> int:
        u32 = self._state_stream.u64(self._entity, number) >> 32
        return next(state for state, threshold in enumerate(thresholds) if u32 < threshold)


def time_shares(config: MarkovRate.Config) -> list[float]:
    """The share of time of each state in the long run: that of its visits, times its mean sojourn."""
    matrix = np.array(config.matrix)
    equations = np.vstack([(matrix.T - np.eye(len(matrix)))[:-1], np.ones(len(matrix))])
    visits = np.linalg.solve(equations, np.eye(len(matrix))[-1])
    times = visits * [state.mean for state in config.states]
    return [float(share) for share in times / times.sum()]


@lru_cache(maxsize=64)
def _thresholds(config: MarkovRate.Config) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Of each state's row, and of the first state: a 32-bit draw below the i-th and no earlier one means state i."""
    return tuple(_cumulated(row) for row in config.matrix), _cumulated(time_shares(config))


def _cumulated(shares: tuple[float, ...] | list[float]) -> tuple[int, ...]:
    last = max(place for place, share in enumerate(shares) if share > 0)
    sums = [probability_u32(min(1.0, total)) for total in accumulate(shares)]
    return (*sums[:last], *[1 << 32] * (len(sums) - last))


def _check_row(place: int, row: tuple[float, ...], count: int) -> None:
    if len(row) != count:
        raise _at(f"transitions[{place}]", "not a probability for each state", value=len(row), allowed=f"{count}")
    if abs(sum(row) - 1) > _SUM_TOLERANCE:
        raise _at(f"transitions[{place}]", "the probabilities don't add up to 1", value=round(sum(row), 12))


def _check_connected(matrix: tuple[tuple[float, ...], ...]) -> None:
    """From every state every other must be reached: no state is left for ever."""
    for start in range(len(matrix)):
        found = {start}
        ahead = [start]
        while ahead:
            state = ahead.pop()
            new = {other for other, probability in enumerate(matrix[state]) if probability > 0} - found
            found |= new
            ahead += new
        if len(found) < len(matrix):
            missing = min(set(range(len(matrix))) - found)
            raise _at(f"transitions[{start}]", f"state {missing} is never reached from state {start}")


def _at(path: str, problem: str, **told: Any) -> Any:
    return as_pydantic(ScenarioError(problem, path=path, **told))
