"""Which sequences hold KV on a server, and what became of those that had to give theirs up."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from testbed.schedulers.entry import Entry
from testbed.schedulers.memory import NO_SESSION, KvMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A sequence was preempted, or came back (its KV read from host memory, or positions run again), or found some."""

    request: int
    is_preemption: bool
    kv_tokens: int = 0  # that it gave up
    swapped_bytes: int = 0  # over the link to host memory
    recomputed_tokens: int = 0  # positions that are run again
    found_tokens: int = 0  # of its session's earlier turns, that it found held


class Residents:
    """Positions held, by request, in the order of admission; preemption is by `swap`, else by recomputing."""

    def __init__(self, memory: KvMemory, *, swap: bool) -> None:
        self.kv_tokens = 0  # of all
        self.moves: list[Move] = []  # since somebody asked last
        self._memory = memory
        self._swap = swap
        self._held: dict[int, int] = {}  # a preempted one that comes back is the latest again
        self._parked: dict[int, int] = {}  # positions that a session's last turn left, by session
        self._away: dict[int, tuple[int, int]] = {}  # preempted: positions given up, bytes in host memory

    def __contains__(self, request: int) -> bool:
        return request in self._held

    def __len__(self) -> int:
        return len(self._held)

    def was_preempted(self, request: int) -> bool:
        return request in self._away

    def found(self, entry: Entry) -> int:
        """Positions that the pass finds done when it is queued: held here, in host memory, or come with it."""
        held = self._held.get(entry.request)
        if held is None and self._swap and entry.request in self._away:
            held = self._away[entry.request][0]
        if held is None and entry.is_first and entry.request not in self._away:
            held = self._left_by_session(entry)
        return entry.base_tokens if held is None else held

    def admit(self, entry: Entry, end_tokens: int) -> list[int] | None:
        """See to room up to `end_tokens`; a sequence that held none is resident from now on.

        The sessions whose parked positions had to go; None where there is no room.
        """
        is_new = entry.request not in self._held
        session = entry.session if is_new and entry.session in self._parked and entry.done_tokens else NO_SESSION
        evicted = self._memory.claim(entry.request, entry.demand, end_tokens, session)
        if evicted is None:
            return None
        for gone in evicted:
            del self._parked[gone]
        if is_new:
            self._held[entry.request] = 0
            self._come_back(entry)
        if session != NO_SESSION:
            del self._parked[session]
            self.moves.append(Move(request=entry.request, is_preemption=False, found_tokens=entry.done_tokens))
        return evicted

    def park(self, request: int, session: int) -> None:
        """It has ended; what it holds stays for its session's next turn."""
        held = self._held.pop(request, None)
        if held is not None:
            self.kv_tokens -= held
            self._memory.park(request, session)
            self._parked[session] = held

    def grow(self, entry: Entry) -> None:
        """It holds `entry.done_tokens` positions now."""
        self.kv_tokens += entry.done_tokens - self._held[entry.request]
        self._held[entry.request] = entry.done_tokens

    def victim(self, seated: Container[int]) -> int:
        """Who is preempted next: the latest admitted that has no share in this iteration yet."""
        return next(request for request in reversed(self._held) if request not in seated)

    def preempt(self, request: int) -> None:
        """It gives all its blocks up."""
        held = self._held.pop(request)
        self.kv_tokens -= held
        freed_bytes = self._memory.release(request)
        swapped_bytes = freed_bytes if self._swap else 0
        self._away[request] = (held, swapped_bytes)
        self.moves.append(Move(request=request, is_preemption=True, kv_tokens=held, swapped_bytes=swapped_bytes))

    def forget(self, request: int) -> None:
        """It has left, whatever it held."""
        self._memory.release(request)
        self.kv_tokens -= self._held.pop(request, 0)
        self._away.pop(request, None)

    def _left_by_session(self, entry: Entry) -> int | None:
        """Positions of the history that its session's last turn left here; what lies behind them is dropped."""
        left = self._parked.get(entry.session)
        return None if left is None else min(left, entry.step_tokens)

    def _come_back(self, entry: Entry) -> None:
        away = self._away.pop(entry.request, None)
        if away is None:
            return
        kv_tokens, swapped_bytes = away
        rerun = 0 if self._swap else kv_tokens - min(kv_tokens, entry.base_tokens)
        self.moves.append(
            Move(request=entry.request, is_preemption=False, recomputed_tokens=rerun, swapped_bytes=swapped_bytes)
        )
