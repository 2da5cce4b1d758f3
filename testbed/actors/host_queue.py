"""One host's calls as the pool keeps them: waiting, in flight, and what a successor would have to run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from testbed.actors.calls import AuditCall, BackCall, BackItem, Call, CloseCall, Done, FillCall


@dataclass(slots=True)
class Pending:
    """A call that was handed in, and its result once it is there."""

    call: Call
    done: Done | None = None


class CallLog:
    """What was run for sessions that are still open, in order: enough to bring a fresh host to the same state.

    Every call is a function of the earlier calls of its sessions, batches apart: their rounding also depends on how
    long the other sessions of the batch are. So a batch stays as long as one of its sessions is open, and runs again
    as the same batch; sessions of it that have ended come in with filler of the right length.

    Memory: the messages and tokens of every open session since it began, times at most the server's batch limit
    for the neighbours in its batches. A session that ends takes with it all that only it needed.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[Call, Done]] = []
        self._open: set[int] = set()

    def __len__(self) -> int:
        return len(self._calls)

    def record(self, call: Call, done: Done) -> None:
        """A call has run; closing a session drops what is no longer needed."""
        if isinstance(call, CloseCall):
            self._open.discard(call.session)
            self._calls = [(kept, its) for kept, its in self._calls if self._is_needed(kept)]
        elif not isinstance(call, AuditCall | FillCall):
            self._open.update(sessions_of(call))
            self._calls.append((call, done))

    def recovery(self) -> list[Call]:
        """The calls that bring a fresh host to where the lost one was, for every open session."""
        calls: list[Call] = []
        lengths: dict[int, int] = {}  # of sessions that have ended, as far as they are rebuilt
        for call, done in self._calls:
            if isinstance(call, BackCall):
                for item, (before, after) in zip(call.items, done.spans, strict=True):
                    if item.session not in self._open:
                        calls.extend(_filler(item, before - lengths.get(item.session, 0)))
                        lengths[item.session] = after
            calls.append(call)
        calls.extend(CloseCall(session=session) for session in lengths)
        return calls

    def _is_needed(self, call: Call) -> bool:
        return any(session in self._open for session in sessions_of(call))


def sessions_of(call: Call) -> list[int]:
    """The sessions a call works on."""
    return [item.session for item in call.items] if isinstance(call, BackCall) else [call.session]


def _filler(item: BackItem, num_tokens: int) -> list[Call]:
    return [FillCall(session=item.session, split=item.split, num_tokens=num_tokens)] if num_tokens else []


@dataclass(slots=True)
class HostQueue:
    """Calls in the order they were handed in. At most one batch is in flight; what comes meanwhile waits for the next.

    `log` is None where a lost host ends the run.
    """

    log: CallLog | None
    waiting: list[Pending] = field(default_factory=list)
    flight: list[Pending] = field(default_factory=list)

    def add(self, call: Call) -> Pending:
        """Hand a call in."""
        self.waiting.append(pending := Pending(call))
        return pending

    def depart(self) -> list[Call]:
        """All that waits is one batch, in flight from now on."""
        self.flight, self.waiting = self.waiting, []
        return [pending.call for pending in self.flight]

    def arrive(self, results: Sequence[Done]) -> None:
        """The batch in flight is done."""
        for pending, done in zip(self.flight, results, strict=True):
            pending.done = done
            if self.log is not None:
                self.log.record(pending.call, done)
        self.flight = []

    def again(self) -> tuple[list[Call], int]:
        """For a fresh host: what it has to run, and how many calls of it, at the front, have been answered before."""
        recovery = [] if self.log is None else self.log.recovery()
        return [*recovery, *(pending.call for pending in self.flight)], len(recovery)
