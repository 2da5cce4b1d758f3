"""A cloud worker in virtual time: schedule, run, hand out, iteration after iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import simpy

from testbed.actors.cloud import REFUSED, BackStep, CloudWorker, Iteration
from testbed.core.events import EventSink, IterationEnded
from testbed.schedulers.fifo import Entry
from testbed.sim.kernel import BusyTime, Clock, Rank, Wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One sequence's result, and how the time since it became ready was spent: it waited, then these."""

    token: int  # REFUSED where the message was
    open_ns: int
    decode_ns: int
    back_ns: int
    seal_ns: int


class Scheduler(Protocol):
    """What a server asks of its scheduler: nothing lost, nothing doubled, limits kept, nobody starved."""

    kv_reserved_bytes: int

    def __len__(self) -> int: ...

    def fits_ever(self, kv_reserve_bytes: int) -> bool: ...

    def add(self, entry: Entry) -> None: ...

    def next_batch(self) -> list[Entry]: ...

    def done(self, request: int) -> None: ...


class Server:
    """One worker: a queue of sequences that are ready, and a loop that runs batches while there are any."""

    def __init__(
        self, clock: Clock, server: int, *, worker: CloudWorker, scheduler: Scheduler, emit: EventSink
    ) -> None:
        self.server = server
        self.num_outstanding = 0  # requests routed here that have not ended
        self.busy = BusyTime()
        self.peak_kv_bytes = 0
        self._clock = clock
        self._worker = worker
        self._scheduler = scheduler
        self._emit = emit
        self._ready: dict[int, tuple[BackStep, simpy.Event]] = {}
        self._kv_tokens: dict[int, int] = {}  # by resident request
        self._kv_total = 0
        self._running: set[int] = set()  # requests of the iteration under way that have not ended meanwhile
        self._num_iterations = 0
        self._wakeup: simpy.Event | None = None
        clock.process(self._serve())

    def fits_ever(self, kv_reserve_bytes: int) -> bool:
        """Whether a sequence that grows to this KV size can be served here at all."""
        return self._scheduler.fits_ever(kv_reserve_bytes)

    def enter(self) -> None:
        """A request is routed here."""
        self.num_outstanding += 1

    def leave(self, request: int) -> None:
        """A request has ended, however it did."""
        self.num_outstanding -= 1
        self.release(request)

    def release(self, request: int) -> None:
        """No pass of this request comes any more: its KV is free, also while its last token is on its way down."""
        self._kv_total -= self._kv_tokens.pop(request, 0)
        self._running.discard(request)
        self._ready.pop(request, None)
        self._scheduler.done(request)
        self._wake()

    def submit(self, item: BackStep, kv_reserve_bytes: int) -> simpy.Event:
        """A sequence is ready for its next pass; the event succeeds with its `Served`."""
        request = item.session.request
        entry = Entry(
            ready_ns=self._clock.now_ns,
            request=request,
            new_tokens=item.step.num_tokens,
            is_prefill=item.session.crossing.is_stateless or item.step.past_tokens == 0,
            kv_reserve_bytes=kv_reserve_bytes,
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

    def _serve(self) -> Wait[None]:
        while True:
            yield self._clock.at(0, Rank.BATCH_FORMATION, self.server)
            batch = self._scheduler.next_batch()
            if batch:
                yield from self._iterate(batch)
            else:
                self._wakeup = self._clock.event()
                yield self._wakeup

    def _iterate(self, batch: list[Entry]) -> Wait[None]:
        items = [self._ready.pop(entry.request) for entry in batch]
        start_ns, num_waiting = self._clock.now_ns, len(self._scheduler)
        iteration = self._worker.start([item for item, _ in items])
        duration_ns = iteration.duration_ns
        self.peak_kv_bytes = max(self.peak_kv_bytes, self._scheduler.kv_reserved_bytes)
        self.busy.start(start_ns, duration_ns)
        self._running = {entry.request for entry in batch}
        yield self._clock.at(duration_ns, Rank.ITERATION_END, self.server)
        tokens = iteration.back.value()
        for (item, served), token in zip(items, tokens, strict=True):
            if item.session.crossing.is_stateless:
                self._scheduler.done(item.session.request)
            served.succeed(_served(token, iteration))
        ran = [item for (item, _), token in zip(items, tokens, strict=True) if token != REFUSED]
        self._account(len(items), ran, start_ns, num_waiting)

    def _account(self, num_sequences: int, ran: list[BackStep], start_ns: int, num_waiting: int) -> None:
        for item in ran:
            if item.session.crossing.is_stateless or item.session.request not in self._running:
                continue
            self._kv_tokens[item.session.request] = item.step.past_tokens + item.step.num_tokens
            self._kv_total += item.step.num_tokens
        prefill_tokens = sum(item.step.num_tokens for item in ran if item.step.past_tokens == 0)
        self._emit(
            IterationEnded(
                time_ns=self._clock.now_ns,
                server=self.server,
                iteration=self._num_iterations,
                start_ns=start_ns,
                num_sequences=num_sequences,
                prefill_tokens=prefill_tokens,
                decode_tokens=sum(item.step.num_tokens for item in ran) - prefill_tokens,
                kv_tokens=self._kv_total,
                num_waiting=num_waiting,
            )
        )
        self._num_iterations += 1


def _served(token: int, iteration: Iteration) -> Served:
    return Served(
        token=token,
        open_ns=iteration.open_ns,
        decode_ns=iteration.decode_ns,
        back_ns=iteration.back.duration_ns,
        seal_ns=iteration.seal_ns,
    )
