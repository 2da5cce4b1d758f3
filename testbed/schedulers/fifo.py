"""First come, first served, iteration by iteration: continuous batching under batch, prefill and KV limits."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field


@dataclass(slots=True, order=True)
class Entry:
    """One sequence that is ready for its next pass, ordered by (ready time, request)."""

    ready_ns: int
    request: int
    new_tokens: int = field(compare=False)
    is_prefill: bool = field(compare=False)
    kv_reserve_bytes: int = field(compare=False)  # its KV at full length, claimed with the prefill


class FifoScheduler:
    """Forms each iteration from what has been ready longest.

    A prefill enters only where the KV cache has room for the sequence at its full length, so nothing is preempted;
    a prefill that must wait holds back later prefills, never decode steps. A prompt longer than `max_prefill_tokens`
    goes as the only prefill of its iteration.
    """

    def __init__(self, *, max_batch: int, max_prefill_tokens: int, kv_capacity_bytes: int) -> None:
        self.max_batch = max_batch
        self.max_prefill_tokens = max_prefill_tokens
        self.kv_capacity_bytes = kv_capacity_bytes
        self.kv_reserved_bytes = 0
        self._prefills: list[Entry] = []  # both in order: prefills may be many, and wait for long
        self._steps: list[Entry] = []
        self._queued: set[int] = set()
        self._reserved: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._prefills) + len(self._steps)

    def fits_ever(self, kv_reserve_bytes: int) -> bool:
        """Whether a sequence of this size can be served at all."""
        return kv_reserve_bytes <= self.kv_capacity_bytes

    def add(self, entry: Entry) -> None:
        """Queue a sequence for its next pass; it must not be queued already."""
        insort(self._prefills if entry.is_prefill else self._steps, entry)
        self._queued.add(entry.request)

    def next_batch(self) -> list[Entry]:
        """Take the next iteration's sequences off the queue; empty when nothing can run."""
        batch: list[Entry] = []
        prefill_tokens = 0
        while len(batch) < self.max_batch:
            queue = self._next_queue(prefill_tokens)
            if not queue:
                break
            entry = queue.pop(0)
            if entry.is_prefill:
                self._reserve(entry)
                prefill_tokens += entry.new_tokens
            batch.append(entry)
        self._queued.difference_update(entry.request for entry in batch)
        return batch

    def done(self, request: int) -> None:
        """The sequence has left for good: its KV is free, and its queued pass, if any, is dropped."""
        self.kv_reserved_bytes -= self._reserved.pop(request, 0)
        if request in self._queued:
            self._queued.remove(request)
            self._prefills = [entry for entry in self._prefills if entry.request != request]
            self._steps = [entry for entry in self._steps if entry.request != request]

    def _next_queue(self, prefill_tokens: int) -> list[Entry]:
        """The queue whose head goes next: that of steps, perhaps empty, while the first prefill must wait."""
        prefills, steps = self._prefills, self._steps
        if not prefills or not self._prefill_fits(prefills[0], prefill_tokens):
            return steps
        return steps if steps and steps[0] < prefills[0] else prefills

    def _prefill_fits(self, entry: Entry, prefill_tokens: int) -> bool:
        within_budget = prefill_tokens == 0 or prefill_tokens + entry.new_tokens <= self.max_prefill_tokens
        return within_budget and self.kv_reserved_bytes + entry.kv_reserve_bytes <= self.kv_capacity_bytes

    def _reserve(self, entry: Entry) -> None:
        self._reserved[entry.request] = entry.kv_reserve_bytes
        self.kv_reserved_bytes += entry.kv_reserve_bytes
