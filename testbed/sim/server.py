"""A cloud worker in virtual time: schedule, run, hand out, iteration after iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import simpy

from testbed.actors.cloud import REFUSED, BackStep, CloudWorker, Iteration, Part
from testbed.core.events import EventSink, IterationEnded, PrefixFound, SequencePreempted, SequenceResumed
from testbed.core.work import KvDemand
from testbed.scenarios.serving import Admission
from testbed.schedulers.entry import Entry, Share
from testbed.schedulers.residents import Move
from testbed.sim.door import Door
from testbed.sim.kernel import BusyTime, Clock, Rank, Wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One sequence's result, and how the time since it became ready was spent: it waited, then these."""

    token: int  # REFUSED where the message was
    open_ns: int
    decode_ns: int
    back_ns: int
    seal_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a scheduler may order a pass by, beside its length and when it became ready."""

    device: int
    since_ns: int  # the request's arrival, or the end of the iteration that gave its last token
    is_first: bool  # its token will be the request's first
    max_output_tokens: int
    session: int = -1  # of which the request is a turn


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """What a server keeps of a session between its turns, in host memory: the messages of so many positions."""

    split: int
    num_tokens: int
    kept_work: int  # of decoding them again


class Scheduler(Protocol):
    """What a server asks of its scheduler: nothing lost, nothing doubled, limits kept, nobody starved."""

    @property
    def kv_tokens(self) -> int: ...

    @property
    def kv_claimed_bytes(self) -> int: ...

    def __len__(self) -> int: ...

    def fits_ever(self, demand: KvDemand) -> bool: ...

    def add(self, entry: Entry) -> None: ...

    def next_batch(self) -> list[Share]: ...

    def done(self, request: int) -> None: ...

    def park(self, request: int, session: int) -> None: ...

    def take_moves(self) -> list[Move]: ...

    def check(self) -> None: ...


class Server:
    """One worker: a queue of sequences that are ready, and a loop that runs batches while there are any."""

    def __init__(
        self,
        clock: Clock,
        server: int,
        *,
        worker: CloudWorker,
        make_scheduler: Callable[[], Scheduler],
        emit: EventSink,
        admission: Admission | None = None,
        keeps_sessions: bool = False,
    ) -> None:
        self.server = server
        self.door = Door(admission)
        self.busy = BusyTime()
        self.peak_kv_bytes = 0
        self._clock = clock
        self._worker = worker
        self._make_scheduler = make_scheduler
        self._scheduler = make_scheduler()
        self._emit = emit
        self._ready: dict[int, tuple[BackStep, simpy.Event]] = {}
        self._session_of: dict[int, int] = {}  # of requests inside, where sessions are kept
        self._opened: set[int] = set()  # requests whose pass's message has been opened
        self._kept_work: dict[int, int] = {}  # of decoding again what came for earlier passes, by request
        self._swapped_bytes = 0  # that the next iteration moves
        self._keeps_sessions = keeps_sessions
        self._turns: dict[int, _Turn] = {}  # by session: its last turn here
        self._under_way: dict[int, tuple[int, int, int]] = {}  # by request: session, split, positions served
        self.num_preemptions = self.swapped_bytes = self.recomputed_tokens = self.prefix_tokens = 0
        self._num_iterations = 0
        self._wakeup: simpy.Event | None = None
        self.is_down = False
        self.life = 0  # how often it has failed
        clock.process(self._serve(self.life))

    def fits_ever(self, demand: KvDemand) -> bool:
        """Whether a sequence that grows to this KV size can be served here at all."""
        return self._scheduler.fits_ever(demand)

    @property
    def num_outstanding(self) -> int:
        """Requests routed here that have not ended."""
        return self.door.num_inside

    def refusal(self) -> str:
        """Why admission control turns a request away now; "" where it does not."""
        return self.door.refusal(self.busy.until(self._clock.now_ns))

    def enter(self, request: int) -> None:
        """A request is routed here."""
        self.door.enter(request, self._clock.now_ns)

    def leave(self, request: int) -> None:
        """A request has ended, however it did."""
        self.door.leave(request, self._clock.now_ns)
        self.release(request)

    def release(self, request: int) -> None:
        """No pass of this request comes any more: its KV is free, also while its last token is on its way down."""
        self._ready.pop(request, None)
        self._opened.discard(request)
        kept_work = self._kept_work.pop(request, 0)
        self._session_of.pop(request, None)
        turn = self._under_way.pop(request, None)
        if turn is None:
            self._scheduler.done(request)
        else:
            session, split, num_tokens = turn
            self._turns[session] = _Turn(split=split, num_tokens=num_tokens, kept_work=kept_work)
            self._scheduler.park(request, session)
        self._wake()

    def fail(self) -> None:
        """All that it holds is lost, and its queues are empty: who waits or runs here is handed None at once."""
        self.is_down = True
        self.life += 1
        self.busy.stop(self._clock.now_ns)
        self._scheduler = self._make_scheduler()
        for book in (self._session_of, self._opened, self._kept_work, self._turns, self._under_way):
            book.clear()
        self._swapped_bytes = 0
        self._wakeup = None
        self._clock.process(self._serve(self.life))
        ready, self._ready = self._ready, {}
        for request in sorted(ready):
            ready[request][1].succeed(None)

    def repair(self) -> None:
        """It serves again."""
        self.is_down = False

    def knows(self, life: int) -> bool:
        """Whether it is up, and has not failed since it had failed so often."""
        return not self.is_down and self.life == life

    def remembers(self, session: int, split: int) -> int:
        """Positions of a session's earlier turns, cut at the same layer, whose messages the server has."""
        turn = self._turns.get(session)
        return 0 if turn is None or turn.split != split else turn.num_tokens

    def check(self) -> None:
        """Internal errors where the server's books do not balance; once nobody is inside, nothing is held."""
        self._scheduler.check()
        self.door.check(self._clock.now_ns)
        if not self.door.num_inside:
            left = len(self._scheduler), self._scheduler.kv_claimed_bytes, self._scheduler.kv_tokens
            assert left == (0, 0, 0), f"nobody is inside, and yet there are waiting passes and KV: {left}"

    def submit(self, item: BackStep, demand: KvDemand, asked: Asked) -> simpy.Event:
        """A sequence is ready for its next pass; the event succeeds with its `Served`, or None if it fails first."""
        request, past_tokens = item.session.request, item.step.past_tokens
        resumes = asked.is_first and past_tokens > 0
        if self._keeps_sessions and not item.session.crossing.is_stateless:
            self._session_of[request] = asked.session
        if resumes:
            self._kept_work[request] = self._turns[asked.session].kept_work
        entry = Entry(
            request=request,
            ready_ns=self._clock.now_ns,
            base_tokens=past_tokens if item.session.crossing.is_stateless else 0,
            end_tokens=past_tokens + item.step.num_tokens,
            demand=demand,
            device=asked.device,
            session=asked.session if resumes else -1,
            since_ns=asked.since_ns,
            is_first=asked.is_first,
            step_tokens=past_tokens,
            max_output_tokens=asked.max_output_tokens,
        )
        served = self._clock.event()
        self._ready[request] = (item, served)
        self._scheduler.add(entry)
        self._wake()
        return served

    def _wake(self) -> None:
        if self._wakeup is not None:
            self._wakeup.succeed()
            self._wakeup = None

    def _serve(self, life: int) -> Wait[None]:
        while True:
            yield self._clock.at(0, Rank.BATCH_FORMATION, self.server)
            if self.life != life:
                return
            batch = self._scheduler.next_batch()
            self._note_moves()
            if batch:
                yield from self._iterate(batch)
            else:
                self._wakeup = self._clock.event()
                yield self._wakeup

    def _iterate(self, shares: list[Share]) -> Wait[None]:
        ready = [self._ready[share.entry.request] for share in shares]
        parts = [self._part(item, share) for (item, _), share in zip(ready, shares, strict=True)]
        start_ns = self._clock.now_ns
        num_waiting = len(self._scheduler) - sum(not share.is_last for share in shares)
        swapped_bytes, self._swapped_bytes = self._swapped_bytes, 0
        iteration = self._worker.start(parts, swapped_bytes)
        duration_ns = iteration.duration_ns
        self.peak_kv_bytes = max(self.peak_kv_bytes, self._scheduler.kv_claimed_bytes)
        self.busy.start(start_ns, duration_ns)
        life = self.life
        yield self._clock.at(duration_ns, Rank.ITERATION_END, self.server)
        if self.life != life:
            return
        tokens = iteration.back.value()
        for part, (_, served), token in zip(parts, ready, tokens, strict=True):
            if token == REFUSED or part.is_last:
                self._hand_out(part.item, served, _served(token, iteration), is_refused=token == REFUSED)
        ran = [share for share, token in zip(shares, tokens, strict=True) if token != REFUSED]
        prefill_tokens = sum(share.num_tokens for share in ran if share.is_prompt)
        self._account(len(parts), sum(share.num_tokens for share in ran), prefill_tokens, start_ns, num_waiting)

    def _hand_out(self, item: BackStep, served: simpy.Event, result: Served, *, is_refused: bool) -> None:
        """A pass is through, unless its sequence has left meanwhile."""
        request = item.session.request
        if self._ready.get(request, (None, None))[1] is not served:
            return
        del self._ready[request]
        self._opened.discard(request)
        if is_refused or item.session.crossing.is_stateless:
            self._scheduler.done(request)
        else:
            self._kept_work[request] = self._kept_work.get(request, 0) + self._worker.decode_work(item)
            session = self._session_of.get(request, -1)
            if session >= 0:
                self._under_way[request] = (session, item.session.split, item.step.past_tokens + item.step.num_tokens)
        served.succeed(result)

    def _account(
        self, num_sequences: int, num_tokens: int, prefill_tokens: int, start_ns: int, num_waiting: int
    ) -> None:
        self._emit(
            IterationEnded(
                time_ns=self._clock.now_ns,
                server=self.server,
                iteration=self._num_iterations,
                start_ns=start_ns,
                num_sequences=num_sequences,
                prefill_tokens=prefill_tokens,
                decode_tokens=num_tokens - prefill_tokens,
                kv_tokens=self._scheduler.kv_tokens,
                num_waiting=num_waiting,
            )
        )
        self._num_iterations += 1

    def _part(self, item: BackStep, share: Share) -> Part:
        request = share.entry.request
        is_opened = request in self._opened
        self._opened.add(request)
        self.door.begin(request)
        return Part(
            item=item,
            num_tokens=share.num_tokens,
            past_tokens=share.past_tokens,
            is_first=share.is_first,
            is_last=share.is_last,
            is_opened=is_opened,
            kept_work=0 if share.past_tokens else self._kept_work.get(request, 0),
        )

    def _note_moves(self) -> None:
        """Sequences that were preempted, or came back: counted, told, and their bytes moved by the next iteration."""
        for move in self._scheduler.take_moves():
            self._swapped_bytes += move.swapped_bytes
            self.swapped_bytes += move.swapped_bytes
            self.num_preemptions += move.is_preemption
            self.prefix_tokens += move.found_tokens
            known = {"time_ns": self._clock.now_ns, "request": move.request, "server": self.server}
            if move.is_preemption:
                self._emit(SequencePreempted(**known, kv_tokens=move.kv_tokens, swapped_bytes=move.swapped_bytes))
            elif move.found_tokens:
                self._emit(PrefixFound(**known, kv_tokens=move.found_tokens))
            else:
                self.recomputed_tokens += move.recomputed_tokens
                self._emit(
                    SequenceResumed(**known, recomputed_tokens=move.recomputed_tokens, swapped_bytes=move.swapped_bytes)
                )


def _served(token: int, iteration: Iteration) -> Served:
    return Served(
        token=token,
        open_ns=iteration.open_ns,
        decode_ns=iteration.decode_ns,
        back_ns=iteration.back.duration_ns,
        seal_ns=iteration.seal_ns,
    )
