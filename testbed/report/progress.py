"""How far a run is, on a terminal; nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from testbed.core.units import format_seconds, ns_to_seconds


class Step(Protocol):
    """What a run tells of itself."""

    @property
    def now_ns(self) -> int: ...

    @property
    def num_ended(self) -> int: ...

    @property
    def num_requests(self) -> int: ...


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[Step], None] | None]:
    """A bar with virtual time, requests and the time left; None where stderr is no terminal or `quiet`."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    # The bar takes what the words leave of the line, so that nothing is cut off in 80 columns.
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("requests,"),
        TextColumn("{task.fields[virtual]} virtual,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        task = bar.add_task("starting", total=None, virtual="0 s")

        def observe(step: Step) -> None:
            virtual = format_seconds(ns_to_seconds(step.now_ns))
            bar.update(task, description="running", total=step.num_requests, completed=step.num_ended, virtual=virtual)

        yield observe


class CellProgress:
    """How far an evaluation is: which method is on which task."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task = None if bar is None else bar.add_task("starting", total=None)

    def begin(self, method: str, task: str, num_requests: int | None) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)  # `reset` can't forget a total
            self._task = self._bar.add_task(f"{method}: {task}", total=num_requests)

    def advance(self, count: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, count)


@contextmanager
def cell_progress(*, quiet: bool) -> Iterator[CellProgress]:
    """A bar for the cell in work, on stderr where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield CellProgress(None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("texts,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    # A file of its own: while the harness works, its own bars are kept off sys.stderr.
    with Progress(*columns, console=Console(file=sys.stderr), transient=True, expand=True) as bar:
        yield CellProgress(bar)


@contextmanager
def counted_progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for work in stages, told what is being done, how much of it is done and of how much; or nothing."""
    if quiet or not sys.stderr.isatty():
        yield lambda doing, num_done, num_all: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        stages: dict[str, TaskID] = {}

        def observe(doing: str, num_done: int, num_all: int) -> None:
            if doing not in stages:
                stages[doing] = bar.add_task(doing, total=num_all)
            bar.update(stages[doing], completed=num_done)

        yield observe
