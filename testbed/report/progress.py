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
