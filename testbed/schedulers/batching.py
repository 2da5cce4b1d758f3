"""Continuous batching, iteration by iteration, with chunked prefill: the law that all shipped schedulers share.

A *pass* of a sequence is ready at the server from `ready_ns` on: a prefill, or a decode step of one token. A sequence
is *resident* from the first share of a pass that found it not resident until `done`: it holds KV. A pass of a
resident sequence whose earlier pass is through is a *step*; any other pass is a *prefill* (every pass of a session
whose server forgets it between passes is one, since `done` follows each of its passes).

Two queues. Steps stand in the scheduler's own order, an integer tuple that ends with (ready_ns, request) and is
therefore unique. Prefills stand in that order too, but a partly done one (below) before all others; there is at most
one of these on a server. The own order is (ready_ns, request) for `fifo`; the other schedulers say theirs.

Forming a batch. With `chunk_tokens` = C, S = min(ready steps, max_batch), all counted when the forming begins, the
tokens that may run are

                  prefills                        steps (one token each)
    no C          max_prefill_tokens              without limit
    arrival       min(max_prefill_tokens, C - S)  C
    decode        min(max_prefill_tokens, C - S)  C
    prefill       min(max_prefill_tokens, C)      C - what prefills took

Entries are taken one at a time, until `max_batch` shares are in the batch or neither queue gives one:

1. The head of the prefills *can go* when (a) tokens: without C, no prefill is in the batch yet or it fits whole into
   what prefills have left; with C, prefills have at least one token left; (b) it is resident, or there are fewer than
   `max_resident` resident sequences; (c) the KV cache has the room that its share claims. Otherwise it, and with it
   every later prefill, waits for a later iteration; steps go on.
2. The head of the steps *can go* when steps have a token left and the KV cache has the room that it claims.
3. Under `arrival` the one of both that is first in the own order is taken where both can go; under `decode` the step;
   under `prefill` the prefill. Where one can go, that one.
4. A step runs whole. Without C a prefill runs whole, else min(its tokens left, what prefills have left) tokens. One
   that is then not through is *partly done*: it stays in its queue, ahead of all other prefills, gives no token, and
   keeps its KV. It is not taken twice in one iteration.

KV with `reserve: full`: a first share claims the sequence's full length (prompt and most output), `done` frees it.

KV with `reserve: blocks`: a block holds `block_tokens` positions of one layer; a share up to position n of a sequence
with k layers here needs k ceil(n / block_tokens) blocks in all. A prefill whose share does not find them free waits
(1c), keeping what it has. A step *preempts* until they are free: each time the sequence that was admitted last, of
those without a share in this batch, be it waiting, partly done, away on its device, or the step's own; then that step
is not taken. No prefill enters a batch any more in whose forming somebody was preempted. Where the walk ends without
a share but with a preemption, it is walked once more from the start.

A preempted sequence holds nothing. It stands, from when its pass is ready, among the prefills: behind the partly done
one, before all that were never preempted, of its like in the own order. When it is taken it is admitted anew, as the
latest. By `recompute` its pass runs all positions from the first on. By `swap` its blocks went to host memory and come
back whole: its pass goes on where it was.

With `prefix: session` what a sequence holds when it ends stays *parked* under its session, whatever its outcome. The
first pass of the session's next turn here, whose history counts h positions, begins behind min(parked, h) of them: its
first share takes the parked blocks over. Parked blocks are evicted before anybody waits or is preempted, if they
suffice together with the free ones: whole sessions, the one parked longest ago first, until the free ones suffice. A
turn that waits when its session is evicted runs all its positions, as a recomputed one does; so does a turn that was
preempted.

Time [our own design]: a message is opened once, and decoded with the first share of its pass. The server keeps opened
messages, still encoded, in host memory without limit: a pass that runs positions again decodes all of the sequence's
messages again, in one launch with the iteration's other ones. Bytes swapped out and in since the last iteration began
take ``ceil(bytes / swap_bandwidth)`` of this one, before its layers.

Nobody is promised anything but this: with `fifo` under `arrival` or `decode` no sequence is overtaken by later ones
for ever, since steps come only from resident sequences, of which there are no new ones while the first prefill waits.
Under `prefill` steps wait while new prompts keep coming and find room.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import insort
from typing import ClassVar

from testbed.core.work import KvDemand
from testbed.schedulers.budget import Budget
from testbed.schedulers.entry import Entry, Limits, Place, Share
from testbed.schedulers.memory import KvMemory
from testbed.schedulers.residents import Move, Residents


def _in_order(entry: Entry) -> Place:
    return entry.order


def _among_prefills(entry: Entry) -> tuple[bool, Place]:
    return (entry.is_new, entry.order)


class BatchScheduler(ABC):
    """Forms each iteration by the law above; a subclass says who goes first.

    `add` queues a pass that is ready, `next_batch` takes the next iteration's shares, `done` says that the sequence
    has left for good, or with its pass where the server forgets it.
    """

    bounded_wait: ClassVar[bool] = False  # no sequence that fits waits while later ones pass again and again

    def __init__(self, *, limits: Limits, memory: KvMemory) -> None:
        self.limits = limits
        self.memory = memory
        self.residents = Residents(memory, swap=limits.preempts_by_swap)
        self.asked_tokens = self.run_tokens = self.dropped_tokens = 0
        self._partial: Entry | None = None  # the partly done prefill: the head of the prefills
        self._prefills: list[Entry] = []
        self._steps: list[Entry] = []
        self._queued: dict[int, Entry] = {}  # the partly done one too

    @abstractmethod
    def order(self, entry: Entry) -> Place:
        """Who goes first among equals of a queue; ends with (ready_ns, request)."""

    def __len__(self) -> int:
        return len(self._queued)

    @property
    def kv_claimed_bytes(self) -> int:
        return self.memory.claimed_bytes

    @property
    def kv_tokens(self) -> int:
        """Positions that resident sequences hold."""
        return self.residents.kv_tokens

    def fits_ever(self, demand: KvDemand) -> bool:
        """Whether a sequence of this size can be served at all."""
        return self.memory.fits_ever(demand)

    def add(self, entry: Entry) -> None:
        """Queue a sequence for its next pass; it must not be queued already."""
        assert entry.request not in self._queued, "a sequence waits for one pass at a time"
        entry.done_tokens = self.residents.found(entry)
        entry.is_new = not self.residents.was_preempted(entry.request)
        entry.order = self.order(entry)
        self.asked_tokens += entry.left_tokens
        self._queued[entry.request] = entry
        if entry.request in self.residents:
            insort(self._steps, entry, key=_in_order)
        else:
            insort(self._prefills, entry, key=_among_prefills)

    def next_batch(self) -> list[Share]:
        """Take the next iteration's shares; empty when nothing can run."""
        while True:
            num_moves = len(self.residents.moves)
            shares = self._walk()
            if shares or len(self.residents.moves) == num_moves:
                return shares

    def done(self, request: int) -> None:
        """The sequence holds nothing any more, and its queued pass, if any, is dropped."""
        self.residents.forget(request)
        entry = self._queued.pop(request, None)
        if entry is not None:
            self.dropped_tokens += entry.left_tokens
            self._unqueue(entry)

    def park(self, request: int, session: int) -> None:
        """The sequence has ended; its positions stay, as long as there is room, for the session's next turn."""
        self.residents.park(request, session)
        self.done(request)

    def take_moves(self) -> list[Move]:
        """Who was preempted, and who came back, since this was asked last."""
        moves, self.residents.moves = self.residents.moves, []
        return moves

    def check(self) -> None:
        """An internal error where memory or positions do not add up."""
        self.memory.check()
        left_tokens = sum(entry.left_tokens for entry in self._queued.values())
        assert self.asked_tokens == self.run_tokens + self.dropped_tokens + left_tokens, "positions are lost or doubled"

    def sort_again(self) -> None:
        """Ask for everybody's order anew: for orders that change while a sequence waits."""
        for entry in self._queued.values():
            entry.order = self.order(entry)
        self._steps.sort(key=_in_order)
        self._prefills.sort(key=_among_prefills)

    def _walk(self) -> list[Share]:
        budget, shares = Budget(self.limits, len(self._steps)), list[Share]()
        while len(shares) < self.limits.max_batch:
            step = self._steps[0] if self._steps and budget.step_tokens > 0 else None
            prefill = self._ready_prefill(budget)
            if prefill is not None and (step is None or not self._before(step, prefill)):
                if self._admits(prefill, budget):
                    shares.append(self._take_prefill(prefill, budget))
                else:
                    budget.hold_prefills()
            elif step is not None:
                if self._makes_room(step, budget):
                    shares.append(self._take_step(budget))
            else:
                break
        return shares

    def _before(self, step: Entry, prefill: Entry) -> bool:
        if self.limits.priority == "arrival":
            return step.order < prefill.order
        return self.limits.priority == "decode"

    def _ready_prefill(self, budget: Budget) -> Entry | None:
        """The head of the prefills, if the iteration still has tokens for it."""
        if self._partial is not None:
            entry = self._partial
        elif self._prefills:
            entry = self._prefills[0]
        else:
            return None
        return entry if budget.prefill_share(entry.left_tokens) else None

    def _admits(self, entry: Entry, budget: Budget) -> bool:
        """Claim what the prefill's share needs, if it is there."""
        limit = self.limits.max_resident
        if limit is not None and entry.request not in self.residents and len(self.residents) >= limit:
            return False
        return self._claims(entry, entry.done_tokens + budget.prefill_share(entry.left_tokens))

    def _claims(self, entry: Entry, end_tokens: int) -> bool:
        """Room up to a position; who waited to find what is evicted for it has to run it again."""
        evicted = self.residents.admit(entry, end_tokens)
        if evicted:
            for other in self._queued.values():
                if other.session in evicted and other.request not in self.residents:
                    self._start_over(other)
        return evicted is not None

    def _start_over(self, entry: Entry) -> None:
        """Its pass begins behind what is still there."""
        done_tokens = self.residents.found(entry)
        self.asked_tokens += entry.done_tokens - done_tokens
        entry.done_tokens = done_tokens

    def _makes_room(self, step: Entry, budget: Budget) -> bool:
        """Claim what a step needs, preempting until it is there; False where the step's own turn came."""
        while not self._claims(step, step.end_tokens):
            victim = self.residents.victim(budget.seated)
            budget.hold_prefills()
            self._preempt(victim)
            if victim == step.request:
                return False
        return True

    def _preempt(self, request: int) -> None:
        """It holds nothing any more; if it waits for a pass, it waits among the prefills."""
        self.residents.preempt(request)
        entry = self._queued.get(request)
        if entry is None:
            return
        self._unqueue(entry)
        self._start_over(entry)
        entry.has_begun = entry.has_begun and self.limits.preempts_by_swap
        entry.is_new = False
        insort(self._prefills, entry, key=_among_prefills)

    def _unqueue(self, entry: Entry) -> None:
        if entry is self._partial:
            self._partial = None
        else:
            self._prefills = [other for other in self._prefills if other is not entry]
            self._steps = [other for other in self._steps if other is not entry]

    def _take_step(self, budget: Budget) -> Share:
        entry = self._steps.pop(0)
        budget.step_tokens -= entry.left_tokens
        return self._share(entry, entry.left_tokens, budget, is_prefill=False)

    def _take_prefill(self, entry: Entry, budget: Budget) -> Share:
        num_tokens = budget.take_prefill(entry.left_tokens)
        if entry is not self._partial:
            self._prefills.pop(0)
        share = self._share(entry, num_tokens, budget, is_prefill=True)
        self._partial = None if share.is_last else entry
        if not share.is_last:
            budget.hold_prefills()
        return share

    def _share(self, entry: Entry, num_tokens: int, budget: Budget, *, is_prefill: bool) -> Share:
        """Positions move from `left` to `done`; a pass that is through leaves its queue."""
        share = Share(
            entry=entry,
            past_tokens=entry.done_tokens,
            num_tokens=num_tokens,
            is_prefill=is_prefill,
            is_first=not entry.has_begun,
            is_last=num_tokens == entry.left_tokens,
        )
        budget.seated.add(entry.request)
        entry.has_begun = True
        entry.done_tokens += num_tokens
        self.run_tokens += num_tokens
        self.residents.grow(entry)
        if share.is_last:
            del self._queued[entry.request]
        return share
