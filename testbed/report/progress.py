"""How far a run is, on a terminal; nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of things done and things to do; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def observe(done: int, total: int) -> None:
            bar.update(task, total=total, completed=done)

        yield observe


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
