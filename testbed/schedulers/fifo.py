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
    """Forms each iteration from the front of one queue.

    A prefill enters only where the KV cache has room for the sequence at its full length, so nothing is preempted;
    a prefill that must wait holds back later prefills, never decode steps. A prompt longer than `max_prefill_tokens`
    goes as the only prefill of its iteration.
    """

    def __init__(self, *, max_batch: int, max_prefill_tokens: int, kv_capacity_bytes: int) -> None:
        self.max_batch = max_batch
        self.max_prefill_tokens = max_prefill_tokens
        self.kv_capacity_bytes = kv_capacity_bytes
        self.kv_reserved_bytes = 0
        self._queue: list[Entry] = []
        self._queued: set[int] = set()
        self._reserved: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def fits_ever(self, kv_reserve_bytes: int) -> bool:
        """Whether a sequence of this size can be served at all."""
        return kv_reserve_bytes <= self.kv_capacity_bytes

    def add(self, entry: Entry) -> None:
        """Queue a sequence for its next pass; it must not be queued already."""
        insort(self._queue, entry)
        self._queued.add(entry.request)

    def next_batch(self) -> list[Entry]:
        """Take the next iteration's sequences off the queue; empty when nothing can run."""
        batch: list[Entry] = []
        left: list[Entry] = []
        prefill_tokens, prefill_blocked = 0, False
        for position, entry in enumerate(self._queue):
            if len(batch) == self.max_batch:
                left.extend(self._queue[position:])
                break
            if entry.is_prefill:
                prefill_blocked = prefill_blocked or not self._prefill_fits(entry, prefill_tokens)
                if prefill_blocked:
                    left.append(entry)
                    continue
                self._reserve(entry)
                prefill_tokens += entry.new_tokens
            batch.append(entry)
        self._queue = left
        self._queued.difference_update(entry.request for entry in batch)
        return batch

    def done(self, request: int) -> None:
        """The sequence has left for good: its KV is free, and its queued pass, if any, is dropped."""
        self.kv_reserved_bytes -= self._reserved.pop(request, 0)
        if request in self._queued:
            self._queued.remove(request)
            self._queue = [entry for entry in self._queue if entry.request != request]

    def _prefill_fits(self, entry: Entry, prefill_tokens: int) -> bool:
        within_budget = prefill_tokens == 0 or prefill_tokens + entry.new_tokens <= self.max_prefill_tokens
        return within_budget and self.kv_reserved_bytes + entry.kv_reserve_bytes <= self.kv_capacity_bytes

    def _reserve(self, entry: Entry) -> None:
        self._reserved[entry.request] = entry.kv_reserve_bytes
        self.kv_reserved_bytes += entry.kv_reserve_bytes
