"""Levels at work: what a value is at any instant, and until when. Pure functions of time, whatever happens else.

A schedule's value at t is that of its last step at or before ``t - offset``, taken modulo `every` where it repeats. Of
random states, number i lasts ``max(1, round(mean e))`` ns, e exponential with mean 1 by the key (seed, purpose, device,
i); the first state is drawn with its share of time in the long run. A trace's rows with the same time: the last holds.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

from testbed.core.errors import ScenarioError
from testbed.core.portable import exponential
from testbed.core.rng import Stream, entity_key
from testbed.core.units import NS_PER_S
from testbed.network_models.rates.segments import FOREVER
from testbed.network_models.rates.sojourns import Sojourns
from testbed.scenarios.base import RANDOM
from testbed.scenarios.levels import RandomLevels, Steps, TraceLevels
from testbed.scenarios.text_file import read_csv

_NS_PER_UNIT = {"s": NS_PER_S, "ms": 1_000_000, "us": 1_000, "ns": 1}
Config = Steps[Any] | RandomLevels[Any] | TraceLevels[Any]


class Level(NamedTuple):
    """A whole number, and until when it holds, exclusive."""

    value: int
    end_ns: int


class Levels(Protocol):
    """A number at every instant."""

    def at(self, time_ns: int) -> Level: ...


class Schedule:
    """Values from listed instants on; the first of these is 0."""

    __slots__ = ("_every_ns", "_offset_ns", "_starts", "_values")

    def __init__(self, starts: Sequence[int], values: Sequence[int], every_ns: int | None = None, offset_ns: int = 0):
        self._starts, self._values = starts, values
        self._every_ns, self._offset_ns = every_ns, offset_ns

    def at(self, time_ns: int) -> Level:
        phase_ns = time_ns - self._offset_ns
        if self._every_ns is not None:
            phase_ns %= self._every_ns
        index = max(1, bisect_right(self._starts, phase_ns))
        if index < len(self._starts):
            return Level(self._values[index - 1], time_ns + self._starts[index] - phase_ns)
        end_ns = FOREVER if self._every_ns is None else time_ns + self._every_ns - phase_ns
        return Level(self._values[-1], end_ns)


class RandomStates:
    """States in turn, each for an exponential time."""

    __slots__ = ("_entity", "_means_ns", "_sojourns", "_stream", "_values")

    def __init__(self, values: Sequence[int], means_ns: Sequence[int], *, seed: int, purpose: str, entity: int) -> None:
        self._values, self._means_ns, self._entity = values, means_ns, entity
        self._stream = Stream.named(seed, f"{purpose}.time")
        drawn = Stream.named(seed, f"{purpose}.first").below(sum(means_ns), entity, 0)
        self._sojourns = Sojourns(bisect_right([*accumulate(means_ns)], drawn), self._draw)

    def at(self, time_ns: int) -> Level:
        state, end_ns = self._sojourns.at(time_ns)
        return Level(self._values[state], end_ns)

    def _draw(self, number: int, state: int) -> tuple[int, int]:
        length = exponential(self._stream, self._entity, number)
        return max(1, round(self._means_ns[state] * length)), (state + 1) % len(self._values)


def levels_of(
    config: Config, convert: Callable[[Any], int], *, seed: int, group: str, count: int, purpose: str
) -> Callable[[int], Levels]:
    """The levels of each of `count` members of a group, by its place; `convert` makes whole numbers of values.

    Reads a trace at once. Raises ScenarioError for one that can't be read, with its file and line.
    """
    if isinstance(config, TraceLevels):
        return _traced(config, convert, count)
    if isinstance(config, RandomLevels):
        values = [convert(state.value) for state in config.states]
        means_ns = [state.mean for state in config.states]
        return lambda place: RandomStates(values, means_ns, seed=seed, purpose=purpose, entity=entity_key(group, place))
    starts, values = [step.at for step in config.steps], [convert(step.value) for step in config.steps]
    every_ns, offset_ns = config.every, config.offset
    if offset_ns != RANDOM or every_ns is None:
        return lambda place: Schedule(starts, values, every_ns, offset_ns)
    offsets = Stream.named(seed, f"{purpose}.offset")
    return lambda place: Schedule(starts, values, every_ns, offsets.below(every_ns, entity_key(group, place), 0))


def _traced(config: TraceLevels[Any], convert: Callable[[Any], int], count: int) -> Callable[[int], Levels]:
    rows = _rows(config, convert, count)
    first = convert(config.initial)

    def schedule(place: int) -> Schedule:
        mine = sorted(rows.get(place if config.device_column is not None else None, ()), key=operator.itemgetter(0))
        return Schedule([0, *(time_ns for time_ns, _ in mine)], [first, *(value for _, value in mine)])

    return schedule


def _rows(
    config: TraceLevels[Any], convert: Callable[[Any], int], count: int
) -> dict[int | None, list[tuple[int, int]]]:
    """(time, value) by device, in the file's order."""
    table = read_csv(config.file)
    time, value = table.column(config.time_column), table.column(config.value_column)
    device = None if config.device_column is None else table.column(config.device_column)
    known: dict[str, int] = {}
    rows: defaultdict[int | None, list[tuple[int, int]]] = defaultdict(list)
    for line, cells in table.rows:
        try:
            text = _cell(cells, value)
            if text not in known:
                known[text] = convert(config.value_of(text))
            place = None if device is None else _place(_cell(cells, device), count)
            rows[place].append((_whole(_cell(cells, time), _NS_PER_UNIT[config.time_unit], "a time"), known[text]))
        except ScenarioError as error:
            raise ScenarioError(f"line {line}: {error.problem}", file=config.file, value=error.value,
                                allowed=error.allowed, nearest=error.nearest) from None  # fmt: skip
    if not rows:
        raise ScenarioError("the trace has no rows", file=config.file)
    return rows


def _cell(cells: Sequence[str], column: int) -> str:
    if column >= len(cells):
        raise ScenarioError(f"{len(cells)} columns, too few")
    return cells[column].strip()


def _place(text: str, count: int) -> int:
    if not text.isdecimal() or int(text) >= count:
        raise ScenarioError("no such device in the group", value=text, allowed=f"a number from 0 to {count - 1}")
    return int(text)


def _whole(text: str, unit: int, meant: str) -> int:
    """A number that isn't negative, times the unit, to the nearest whole one."""
    try:
        number = round(float(text) * unit)
    except (ValueError, OverflowError):
        raise ScenarioError("not a number", value=text, allowed=meant) from None
    if number < 0:
        raise ScenarioError("negative", value=text, allowed=meant)
    return number
