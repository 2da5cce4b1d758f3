"""A cloud worker in virtual time: schedule, run, hand out, iteration after iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import simpy

from testbed.actors.cloud import REFUSED, BackStep, CloudWorker, Iteration, Part
from testbed.core.events import EventSink, IterationEnded
from testbed.core.work import KvDemand
from testbed.schedulers.entry import Entry, Share
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


class Scheduler(Protocol):
    """What a server asks of its scheduler: nothing lost, nothing doubled, limits kept, nobody starved."""

    kv_tokens: int

    @property
    def kv_claimed_bytes(self) -> int: ...

    def __len__(self) -> int: ...

    def fits_ever(self, demand: KvDemand) -> bool: ...

    def add(self, entry: Entry) -> None: ...

    def next_batch(self) -> list[Share]: ...

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
        self._num_iterations = 0
        self._wakeup: simpy.Event | None = None
        clock.process(self._serve())

    def fits_ever(self, demand: KvDemand) -> bool:
        """Whether a sequence that grows to this KV size can be served here at all."""
        return self._scheduler.fits_ever(demand)

    def enter(self) -> None:
        """A request is routed here."""
        self.num_outstanding += 1

    def leave(self, request: int) -> None:
        """A request has ended, however it did."""
        self.num_outstanding -= 1
        self.release(request)

    def release(self, request: int) -> None:
        """No pass of this request comes any more: its KV is free, also while its last token is on its way down."""
        self._ready.pop(request, None)
        self._scheduler.done(request)
        self._wake()

    def submit(self, item: BackStep, demand: KvDemand, asked: Asked) -> simpy.Event:
        """A sequence is ready for its next pass; the event succeeds with its `Served`."""
        request, past_tokens = item.session.request, item.step.past_tokens
        entry = Entry(
            request=request,
            ready_ns=self._clock.now_ns,
            base_tokens=past_tokens if item.session.crossing.is_stateless else 0,
            end_tokens=past_tokens + item.step.num_tokens,
            demand=demand,
            device=asked.device,
            since_ns=asked.since_ns,
            is_first=asked.is_first,
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

    def _serve(self) -> Wait[None]:
        while True:
            yield self._clock.at(0, Rank.BATCH_FORMATION, self.server)
            batch = self._scheduler.next_batch()
            if batch:
                yield from self._iterate(batch)
            else:
                self._wakeup = self._clock.event()
                yield self._wakeup

    def _iterate(self, shares: list[Share]) -> Wait[None]:
        ready = [self._ready[share.entry.request] for share in shares]
        parts = [_part(item, share) for (item, _), share in zip(ready, shares, strict=True)]
        start_ns = self._clock.now_ns
        num_waiting = len(self._scheduler) - sum(not share.is_last for share in shares)
        iteration = self._worker.start(parts)
        duration_ns = iteration.duration_ns
        self.peak_kv_bytes = max(self.peak_kv_bytes, self._scheduler.kv_claimed_bytes)
        self.busy.start(start_ns, duration_ns)
        yield self._clock.at(duration_ns, Rank.ITERATION_END, self.server)
        tokens = iteration.back.value()
        ran = [part for part, token in zip(parts, tokens, strict=True) if token != REFUSED]
        for part, (_, served), token in zip(parts, ready, tokens, strict=True):
            if token == REFUSED or part.is_last:
                self._hand_out(part.item, served, _served(token, iteration), is_refused=token == REFUSED)
        self._account(len(parts), ran, start_ns, num_waiting)

    def _hand_out(self, item: BackStep, served: simpy.Event, result: Served, *, is_refused: bool) -> None:
        """A pass is through, unless its sequence has left meanwhile."""
        request = item.session.request
        if self._ready.get(request, (None, None))[1] is not served:
            return
        del self._ready[request]
        if is_refused or item.session.crossing.is_stateless:
            self._scheduler.done(request)
        served.succeed(result)

    def _account(self, num_sequences: int, ran: list[Part], start_ns: int, num_waiting: int) -> None:
        prefill_tokens = sum(part.num_tokens for part in ran if part.item.step.past_tokens == 0)
        self._emit(
            IterationEnded(
                time_ns=self._clock.now_ns,
                server=self.server,
                iteration=self._num_iterations,
                start_ns=start_ns,
                num_sequences=num_sequences,
                prefill_tokens=prefill_tokens,
                decode_tokens=sum(part.num_tokens for part in ran) - prefill_tokens,
                kv_tokens=self._scheduler.kv_tokens,
                num_waiting=num_waiting,
            )
        )
        self._num_iterations += 1


def _part(item: BackStep, share: Share) -> Part:
    return Part(
        item=item,
        num_tokens=share.num_tokens,
        past_tokens=share.past_tokens,
        is_first=share.is_first,
        is_last=share.is_last,
    )


def _served(token: int, iteration: Iteration) -> Served:
    return Served(
        token=token,
        open_ns=iteration.open_ns,
        decode_ns=iteration.decode_ns,
        back_ns=iteration.back.duration_ns,
        seal_ns=iteration.seal_ns,
    )
