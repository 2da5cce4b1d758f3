"""Losses as they were measured: read from a file, repeated for ever."""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from testbed.core.errors import ScenarioError
from testbed.network_models.losses.ordered import OrderedLoss
from testbed.network_models.origin import Origin
from testbed.network_models.rates.segments import Rate
from testbed.scenarios.base import FileName
from testbed.scenarios.pieces import LossConfig
from testbed.scenarios.text_file import read_lines

_BITS = re.compile(r"[01]+")
_RUN = re.compile(r"([0-9]{1,12}) *x *([01])")
_SHOWN = 80


class Runs(NamedTuple):
    """A period of transmissions: runs of like fate in turn."""

    ends: tuple[int, ...]  # exclusive, ascending; the last is the period
    is_lost: tuple[bool, ...]

    @property
    def period(self) -> int:
        return self.ends[-1]


class TraceLoss(OrderedLoss):
    """The fates of a file's transmissions, one after the other, and again from the start.

    A line is a row of digits, one a transmission, 0 for one that arrives and 1 for one that is lost; or a run of them:
    ``950 x 0`` is 950 that arrive. Blank lines and what follows a ``#`` are left out. With `start` random a link and
    direction begins anywhere in the file, uniformly, at a place of its own.
    """

    class Config(LossConfig):
        follows_order: ClassVar[bool] = True
        kind: Literal["trace"] = "trace"
        file: FileName
        start: Literal["first", "random"] = "first"

    __slots__ = ("_offset", "_runs")

    def __init__(self, config: Config, origin: Origin, rate: Rate) -> None:
        super().__init__()
        self._runs = read_runs(config.file)
        self._offset = 0
        if config.start == "random":
            self._offset = origin.stream("loss.start").below(self._runs.period, origin.entity, 0)

    def _decide(self, first: int, count: int) -> list[int]:
        ends, is_lost = self._runs
        found: list[int] = []
        place, stop = first, first + count
        while place < stop:
            into = (place + self._offset) % self._runs.period
            run = bisect_left(ends, into + 1)
            until = min(stop, place + ends[run] - into)
            if is_lost[run]:
                found.extend(range(place, until))
            place = until
        return found


def read_runs(file: str) -> Runs:
    """What the file says; links that share a file share this.

    Raises ScenarioError, with file, line and content, for a file or a line that can't be read.
    """
    try:
        stat = Path(file).stat()
    except (OSError, ValueError):
        stamp = None  # reading it says what is wrong
    else:
        stamp = (stat.st_mtime_ns, stat.st_size)
    return _read(file, stamp)


@lru_cache(maxsize=64)
def _read(file: str, stamp: Any) -> Runs:
    runs: list[tuple[int, bool]] = []
    for number, text in read_lines(file):
        runs += _runs_of(text, file, number)
    if not runs:
        raise ScenarioError("the loss trace is empty", file=file, allowed=_ALLOWED)
    return Runs(tuple(accumulate(count for count, _ in runs)), tuple(is_lost for _, is_lost in runs))


_ALLOWED = "digits 0 (arrives) and 1 (lost), one a transmission; or a run such as 950 x 0"


def _runs_of(text: str, file: str, line: int) -> list[tuple[int, bool]]:
    if _BITS.fullmatch(text):
        return [(len(found[0]), found[0][0] == "1") for found in re.finditer("0+|1+", text)]
    run = _RUN.fullmatch(text)
    if run is None or not int(run[1]):
        problem = "a run of no transmission" if run else "neither digits 0 and 1 nor a run of them"
        raise ScenarioError(f"line {line}: {problem}", file=file, value=text[:_SHOWN], allowed=_ALLOWED)
    return [(int(run[1]), run[2] == "1")]
