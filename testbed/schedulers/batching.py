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

Nobody is promised anything but this: with `fifo` under `arrival` or `decode` no sequence is overtaken by later ones
for ever, since steps come only from resident sequences, of which there are no new ones while the first prefill waits.
Under `prefill` steps wait while new prompts keep coming and find room.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import insort
from operator import attrgetter
from typing import ClassVar

from testbed.core.work import KvDemand
from testbed.schedulers.entry import Entry, Limits, Place, Share
from testbed.schedulers.memory import KvMemory

_in_order = attrgetter("order")


class BatchScheduler(ABC):
    """Forms each iteration by the law above; a subclass says who goes first.

    `add` queues a pass that is ready, `next_batch` takes the next iteration's shares, `done` says that the sequence
    has left for good, or with its pass where the server forgets it.
    """

    bounded_wait: ClassVar[bool] = False  # no sequence that fits waits while later ones pass again and again

    def __init__(self, *, limits: Limits, memory: KvMemory) -> None:
        self.limits = limits
        self.memory = memory
        self.kv_tokens = 0  # positions held by resident sequences
        self._partial: Entry | None = None  # the partly done prefill: the head of the prefills
        self._prefills: list[Entry] = []
        self._steps: list[Entry] = []
        self._queued: dict[int, Entry] = {}  # the partly done one too
        self._resident: dict[int, int] = {}  # positions held, by request; the longest resident first

    @abstractmethod
    def order(self, entry: Entry) -> Place:
        """Who goes first among equals of a queue; ends with (ready_ns, request)."""

    def __len__(self) -> int:
        return len(self._queued)

    @property
    def kv_claimed_bytes(self) -> int:
        return self.memory.claimed_bytes

    def fits_ever(self, demand: KvDemand) -> bool:
        """Whether a sequence of this size can be served at all."""
        return self.memory.fits_ever(demand)

    def add(self, entry: Entry) -> None:
        """Queue a sequence for its next pass; it must not be queued already."""
        assert entry.request not in self._queued, "a sequence waits for one pass at a time"
        held = self._resident.get(entry.request)
        entry.done_tokens = entry.base_tokens if held is None else held
        entry.order = self.order(entry)
        self._queued[entry.request] = entry
        insort(self._prefills if held is None else self._steps, entry, key=_in_order)

    def next_batch(self) -> list[Share]:
        """Take the next iteration's shares; empty when nothing can run."""
        budget = _Budget(self.limits, len(self._steps))
        shares: list[Share] = []
        while len(shares) < self.limits.max_batch:
            share = self._next_share(budget)
            if share is None:
                break
            shares.append(share)
        return shares

    def done(self, request: int) -> None:
        """The sequence holds nothing any more, and its queued pass, if any, is dropped."""
        self.memory.release(request)
        self.kv_tokens -= self._resident.pop(request, 0)
        entry = self._queued.pop(request, None)
        if entry is None:
            return
        if entry is self._partial:
            self._partial = None
        else:
            self._prefills = [other for other in self._prefills if other is not entry]
            self._steps = [other for other in self._steps if other is not entry]

    def sort_again(self) -> None:
        """Ask for everybody's order anew: for orders that change while a sequence waits."""
        for queue in (self._prefills, self._steps):
            for entry in queue:
                entry.order = self.order(entry)
            queue.sort(key=_in_order)
        if self._partial is not None:
            self._partial.order = self.order(self._partial)

    def _next_share(self, budget: _Budget) -> Share | None:
        """The queue heads' turn: what goes next, or None."""
        step = self._steps[0] if self._steps and budget.step_tokens > 0 else None
        prefill = self._ready_prefill(budget)
        if step is not None and (prefill is None or self._before(step, prefill)):
            return self._take_step(budget)
        if prefill is not None and self._claims(prefill, budget):
            return self._take_prefill(prefill, budget)
        budget.hold_prefills()
        return None if step is None else self._take_step(budget)

    def _before(self, step: Entry, prefill: Entry) -> bool:
        if self.limits.priority == "arrival":
            return step.order < prefill.order
        return self.limits.priority == "decode"

    def _ready_prefill(self, budget: _Budget) -> Entry | None:
        """The head of the prefills, if the iteration still has tokens for it."""
        if self._partial is not None:
            entry = self._partial
        elif self._prefills:
            entry = self._prefills[0]
        else:
            return None
        return entry if budget.prefill_share(entry.left_tokens) else None

    def _claims(self, entry: Entry, budget: _Budget) -> bool:
        """Claim what the prefill's share needs, if it is there."""
        limit, is_new = self.limits.max_resident, entry.request not in self._resident
        if is_new and limit is not None and len(self._resident) >= limit:
            return False
        end_tokens = entry.done_tokens + budget.prefill_share(entry.left_tokens)
        return self.memory.claim(entry.request, entry.demand, end_tokens)

    def _take_step(self, budget: _Budget) -> Share:
        entry = self._steps.pop(0)
        claimed = self.memory.claim(entry.request, entry.demand, entry.end_tokens)
        assert claimed, "a resident sequence has claimed its full length"
        budget.step_tokens -= 1
        return self._share(entry, entry.left_tokens, is_prefill=False)

    def _take_prefill(self, entry: Entry, budget: _Budget) -> Share:
        num_tokens = budget.take_prefill(entry.left_tokens)
        was_partial = entry is self._partial
        if not was_partial:
            self._prefills.pop(0)
        share = self._share(entry, num_tokens, is_prefill=True)
        self._partial = None if share.is_last else entry
        if not share.is_last:
            budget.hold_prefills()
        return share

    def _share(self, entry: Entry, num_tokens: int, *, is_prefill: bool) -> Share:
        """Positions move from `left` to `done`; a pass that is through leaves its queue."""
        past_tokens, is_last = entry.done_tokens, num_tokens == entry.left_tokens
        is_first = not is_prefill or past_tokens == entry.base_tokens
        entry.done_tokens += num_tokens
        held = self._resident.get(entry.request, 0)
        self._resident[entry.request] = entry.done_tokens
        self.kv_tokens += entry.done_tokens - held
        if is_last:
            del self._queued[entry.request]
        return Share(
            entry=entry,
            past_tokens=past_tokens,
            num_tokens=num_tokens,
            is_prefill=is_prefill,
            is_first=is_first,
            is_last=is_last,
        )


class _Budget:
    """The tokens that prefills and steps may still take in the iteration that is being formed."""

    __slots__ = ("_chunked", "_is_held", "_num_prefills", "_shared", "prefill_tokens", "step_tokens")

    def __init__(self, limits: Limits, num_steps: int) -> None:
        chunk = limits.chunk_tokens
        self._chunked = chunk is not None
        self._shared = chunk is not None and limits.priority == "prefill"
        self._num_prefills = 0
        self._is_held = False
        self.prefill_tokens = limits.max_prefill_tokens
        self.step_tokens = limits.max_batch if chunk is None else chunk
        if chunk is not None:
            set_aside = 0 if self._shared else min(num_steps, limits.max_batch)
            self.prefill_tokens = min(limits.max_prefill_tokens, chunk - set_aside)

    def hold_prefills(self) -> None:
        """The first prefill has to wait, and later ones do not pass it."""
        self._is_held = True

    def prefill_share(self, left_tokens: int) -> int:
        """How many of its tokens the next prefill may run; 0: it has to wait."""
        if self._is_held:
            return 0
        if self._chunked:
            return max(0, min(left_tokens, self.prefill_tokens))
        return left_tokens if self._num_prefills == 0 or left_tokens <= self.prefill_tokens else 0

    def take_prefill(self, left_tokens: int) -> int:
        taken = self.prefill_share(left_tokens)
        self.prefill_tokens -= taken
        self._num_prefills += 1
        if self._shared:
            self.step_tokens -= taken
        return taken
