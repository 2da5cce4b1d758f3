"""A Poisson process whose rate jumps between states, as a Markov chain in continuous time does."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.portable_arrays import exponential_quantile
from testbed.core.rng import F64Array, I64Array
from testbed.core.units import NS_PER_S
from testbed.scenarios.base import Block, FrequencyOrZero, PositiveTimeNs, Probability, as_pydantic
from testbed.scenarios.workload import ArrivalConfig
from testbed.workloads.arrivals.rated import at
from testbed.workloads.intensity import in_order, poisson_counts
from testbed.workloads.members import Members
from testbed.workloads.openings import Openings, ragged

_SUM_TOLERANCE = 1e-9
Row = Annotated[tuple[Probability, ...], Field(strict=False)]


class State(Block):
    """A rate, and for how long it lasts in the mean."""

    rate: FrequencyOrZero
    mean: PositiveTimeNs


class Mmpp:
    """A Markov-modulated Poisson process of every device, or of the group: bursts that come in states.

    Stays are exponential; what follows a state is drawn by its row of transitions, without them any other state alike.
    The process is found in a state with the probability that it has in the long run. Arrivals of a stay are as many as
    a Poisson law gives, at uniform instants of it.
    """

    class Config(ArrivalConfig):
        kind: Literal["mmpp"] = "mmpp"
        states: Annotated[tuple[State, ...], Field(strict=False, min_length=2)]
        transitions: Annotated[tuple[Row, ...], Field(strict=False)] | None = None
        per: Literal["device", "group"] = "device"  # whose states and rates they are
        until: PositiveTimeNs

        @model_validator(mode="after")
        def _is_a_chain(self) -> Self:
            count = len(self.states)
            if len(self.matrix) != count:
                raise at("transitions", "not a row for each state", value=len(self.matrix), allowed=f"{count} rows")
            for place, row in enumerate(self.matrix):
                path = f"transitions[{place}]"
                if len(row) != count:
                    raise at(path, "not a probability for each state", value=len(row), allowed=f"{count}")
                if abs(sum(row) - 1) > _SUM_TOLERANCE:
                    raise at(path, "the probabilities don't add up to 1", value=round(sum(row), 12))
            if not any(state.rate for state in self.states):
                raise at("states", "every rate is 0: nothing would ever arrive")
            _check_connected(self.matrix)
            return self

        @property
        def matrix(self) -> tuple[tuple[float, ...], ...]:
            if self.transitions is not None:
                return self.transitions
            places, others = range(len(self.states)), len(self.states) - 1
            return tuple(tuple(float(to != of) / others for to in places) for of in places)

    def __init__(self, config: Config) -> None:
        self._config = config
        self._rates_per_s = np.array([state.rate for state in config.states])
        self._means_ns = np.array([float(state.mean) for state in config.states])
        self.shares = _time_shares(np.array(config.matrix), self._means_ns)

    @property
    def mean_rate_per_s(self) -> float:
        """In the long run, of whoever draws."""
        return float(self._rates_per_s @ self.shares)

    def expected_count(self, members: Members) -> float:
        """Requests of the group in the mean."""
        drawers = members.count if self._config.per == "device" else 1
        return drawers * self.mean_rate_per_s * self._config.until / NS_PER_S

    def openings(self, members: Members) -> Openings:
        is_per_device = self._config.per == "device"
        owner, start_ns, length_ns, counts = self._stays(members, members.count if is_per_device else 1)
        stay, _ = ragged(counts)
        number = ragged(np.bincount(owner[stay], minlength=1))[1]
        u = members.stream("arrivals").uniform_each(members.entities[owner[stay]], number)
        instants = start_ns[stay] + (u * length_ns[stay]).astype(np.int64)
        return in_order(members, owner[stay], instants, is_per_device)

    def _stays(self, members: Members, drawers: int) -> tuple[I64Array, I64Array, I64Array, I64Array]:
        """Drawer, start, length and number of arrivals of every stay, sorted by drawer and time."""
        states, lengths, arrivals = (members.stream(f"arrivals.{name}") for name in ("state", "stay", "count"))
        owner, number = np.arange(drawers, dtype=np.int64), np.zeros(drawers, dtype=np.int64)
        now_ns = np.zeros(drawers, dtype=np.int64)
        u = states.uniform_each(members.entities[owner], number)
        state = _below(np.tile(np.cumsum(self.shares), (drawers, 1)), u)
        steps, found = np.cumsum(np.array(self._config.matrix), axis=1), []
        while len(owner):
            keys = members.entities[owner]
            drawn = exponential_quantile(lengths.uniform_each(keys, number)) * self._means_ns[state]
            length_ns = np.minimum(np.maximum(np.rint(drawn), 1), self._config.until - now_ns).astype(np.int64)
            means = self._rates_per_s[state] * (length_ns / NS_PER_S)
            found.append((owner, now_ns, length_ns, poisson_counts(means, arrivals.uniform_each(keys, number))))
            now_ns, number = now_ns + length_ns, number + 1
            state = _below(steps[state], states.uniform_each(keys, number))
            goes_on = now_ns < self._config.until
            owner, number, now_ns, state = owner[goes_on], number[goes_on], now_ns[goes_on], state[goes_on]
        columns = [np.concatenate(column) for column in zip(*found, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        return columns[0][order], columns[1][order], columns[2][order], columns[3][order]


def _below(cumulated: F64Array, u: F64Array) -> I64Array:
    """Of each row of cumulated probabilities, the first place whose sum is above the draw."""
    scaled = u * cumulated[:, -1]  # sums of floats may miss 1 by little
    places: I64Array = (cumulated <= scaled[:, None]).sum(axis=1)
    return places


def _time_shares(matrix: F64Array, means_ns: F64Array) -> F64Array:
    """The share of time of each state in the long run: that of its visits, times its mean stay."""
    size = len(matrix)
    equations = np.vstack([(matrix.T - np.eye(size))[:-1], np.ones(size)])
    visits = np.linalg.solve(equations, np.eye(size)[-1])
    times: F64Array = visits * means_ns / (visits @ means_ns)
    return times


def _check_connected(matrix: tuple[tuple[float, ...], ...]) -> None:
    """From every state every other must be reached: no state is left for ever."""
    reached = np.linalg.matrix_power((np.array(matrix) > 0) | np.eye(len(matrix), dtype=bool), len(matrix))
    for start, missing in np.argwhere(~reached)[:1].tolist():
        problem = f"state {missing} is never reached from state {start}"
        raise as_pydantic(ScenarioError(problem, path=f"transitions[{start}]"))
