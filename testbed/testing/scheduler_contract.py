"""What every scheduler must hold: subclass `SchedulerContract` in a test module, say how one is made, run pytest.

class TestMine(SchedulerContract):
    def make_scheduler(self, *, max_batch, max_prefill_tokens, kv_capacity_bytes):
        return MyScheduler(max_batch=max_batch, ...)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from testbed.core.rng import Stream
from testbed.schedulers.fifo import Entry

if TYPE_CHECKING:
    from testbed.sim.server import Scheduler

MAX_BATCH, MAX_PREFILL_TOKENS, KV_CAPACITY_BYTES = 4, 64, 1000
NUM_CASES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SequencePlan:
    """One made-up sequence: when its prefill is ready, and what it takes."""

    request: int
    ready: int  # the iteration before which its prefill is ready
    prompt_tokens: int
    kv_reserve_bytes: int
    num_passes: int


@dataclass(slots=True, kw_only=True)
class History:
    """What a scheduler did: the batches, and the passes each sequence has had."""

    batches: list[list[Entry]] = field(default_factory=list)
    reserved_bytes: list[int] = field(default_factory=list)  # by batch, as the scheduler said
    passes: dict[int, int] = field(default_factory=dict)


def random_sequences(case: int, count: int = 25) -> list[SequencePlan]:
    """Sequences that each fit the limits alone, except that some prompts are longer than an iteration's prefill."""
    draws = Stream.named(case, "scheduler contract")

    def below(bound: int, what: int, request: int) -> int:
        return draws.below(bound, what, request)

    return [
        SequencePlan(
            request=request,
            ready=below(12, 0, request),
            prompt_tokens=1 + below(MAX_PREFILL_TOKENS * 3 // 2, 1, request),
            kv_reserve_bytes=1 + below(KV_CAPACITY_BYTES * 2 // 3, 2, request),
            num_passes=1 + below(6, 3, request),
        )
        for request in range(count)
    ]


class SchedulerContract(ABC):
    """Nothing lost or doubled, limits kept, nobody starved, the same answer whatever the order of adding."""

    @abstractmethod
    def make_scheduler(self, *, max_batch: int, max_prefill_tokens: int, kv_capacity_bytes: int) -> Scheduler:
        """A fresh scheduler with these limits."""

    def fresh(self) -> Scheduler:
        return self.make_scheduler(
            max_batch=MAX_BATCH, max_prefill_tokens=MAX_PREFILL_TOKENS, kv_capacity_bytes=KV_CAPACITY_BYTES
        )

    def drive(self, sequences: Sequence[SequencePlan], *, backwards: bool = False) -> History:
        """Serve them to the end, an iteration after the other; fails when the scheduler stops with some left."""
        scheduler, history = self.fresh(), History(passes={item.request: 0 for item in sequences})
        by_request = {item.request: item for item in sequences}
        bound = sum(item.num_passes for item in sequences) + max(item.ready for item in sequences) + 1
        for iteration in range(bound):
            new = [_entry(item, 0, iteration) for item in sequences if item.ready == iteration]
            again = [
                _entry(by_request[entry.request], history.passes[entry.request], iteration)
                for entry in (history.batches[-1] if history.batches else [])
                if history.passes[entry.request] < by_request[entry.request].num_passes
            ]
            for entry in sorted(new + again, key=lambda entry: entry.request, reverse=backwards):
                scheduler.add(entry)
            batch = scheduler.next_batch()
            history.batches.append(batch)
            history.reserved_bytes.append(scheduler.kv_reserved_bytes)
            for entry in batch:
                history.passes[entry.request] += 1
                if history.passes[entry.request] == by_request[entry.request].num_passes:
                    scheduler.done(entry.request)
        assert len(scheduler) == 0, "sequences were left waiting for ever"
        assert scheduler.kv_reserved_bytes == 0, "memory of sequences that have left is still claimed"
        return history

    def test_every_pass_is_run_once_and_none_is_lost(self) -> None:
        for case in range(NUM_CASES):
            sequences = random_sequences(case)
            history = self.drive(sequences)
            assert history.passes == {item.request: item.num_passes for item in sequences}
            for batch in history.batches:
                assert len({entry.request for entry in batch}) == len(batch), "a sequence is twice in a batch"

    def test_batches_keep_their_limits(self) -> None:
        for case in range(NUM_CASES):
            for batch in self.drive(random_sequences(case)).batches:
                prefills = [entry.new_tokens for entry in batch if entry.is_prefill]
                assert len(batch) <= MAX_BATCH
                assert sum(prefills) <= MAX_PREFILL_TOKENS or len(prefills) == 1

    def test_claimed_memory_is_that_of_the_sequences_within_and_never_beyond_the_limit(self) -> None:
        for case in range(NUM_CASES):
            sequences = {item.request: item for item in random_sequences(case)}
            history = self.drive(list(sequences.values()))
            passes = dict.fromkeys(sequences, 0)
            for batch, reserved_bytes in zip(history.batches, history.reserved_bytes, strict=True):
                for entry in batch:
                    passes[entry.request] += 1
                # Claimed with the prefill, freed by `done`: at a batch's forming its own sequences are all within.
                within = [item for item in sequences.values() if 0 < passes[item.request] <= item.num_passes]
                left = [item for item in within if self._left_before(item, passes, batch)]
                claimed = sum(item.kv_reserve_bytes for item in within) - sum(item.kv_reserve_bytes for item in left)
                assert reserved_bytes == claimed <= KV_CAPACITY_BYTES

    @staticmethod
    def _left_before(item: SequencePlan, passes: dict[int, int], batch: list[Entry]) -> bool:
        return passes[item.request] == item.num_passes and item.request not in {entry.request for entry in batch}

    def test_the_order_of_adding_at_one_instant_does_not_matter(self) -> None:
        for case in range(NUM_CASES):
            sequences = random_sequences(case)
            forwards, backwards = self.drive(sequences), self.drive(sequences, backwards=True)
            assert forwards.batches == backwards.batches

    def test_there_is_always_a_batch_while_a_sequence_could_run(self) -> None:
        scheduler = self.fresh()
        assert scheduler.next_batch() == []
        scheduler.add(_entry(random_sequences(0)[0], 0, 0))
        assert len(scheduler.next_batch()) == 1
        assert scheduler.next_batch() == []

    def test_nobody_waits_while_later_ones_pass_again_and_again(self) -> None:
        """A prefill as large as the cache gets in although small ones keep coming."""
        scheduler = self.fresh()
        small = [
            SequencePlan(request=number, ready=0, prompt_tokens=1, kv_reserve_bytes=400, num_passes=2)
            for number in range(1, 101)
        ]
        large = SequencePlan(request=0, ready=1, prompt_tokens=1, kv_reserve_bytes=KV_CAPACITY_BYTES, num_passes=1)
        scheduler.add(_entry(small[0], 0, 0))
        running = {small[0].request: scheduler.next_batch()[0]}
        for iteration in range(1, 20):
            if iteration == 1:
                scheduler.add(_entry(large, 0, iteration))
            scheduler.add(_entry(small[iteration], 0, iteration))
            for request in running:
                scheduler.done(request)
            batch = scheduler.next_batch()
            if any(entry.request == 0 for entry in batch):
                return
            running = {entry.request: entry for entry in batch}
        raise AssertionError("a sequence that fits waited while twenty later ones were served")

    def test_a_sequence_that_has_left_is_not_run(self) -> None:
        scheduler = self.fresh()
        first, second = random_sequences(1)[:2]
        scheduler.add(_entry(first, 0, 0))
        scheduler.add(_entry(second, 0, 0))
        scheduler.done(first.request)
        assert [entry.request for entry in scheduler.next_batch()] == [second.request]

    def test_it_says_what_can_never_fit(self) -> None:
        scheduler = self.fresh()
        assert scheduler.fits_ever(KV_CAPACITY_BYTES)
        assert not scheduler.fits_ever(KV_CAPACITY_BYTES + 1)


def _entry(item: SequencePlan, num_passes: int, now: int) -> Entry:
    return Entry(
        ready_ns=now,
        request=item.request,
        new_tokens=item.prompt_tokens if num_passes == 0 else 1,
        is_prefill=num_passes == 0,
        kv_reserve_bytes=item.kv_reserve_bytes,
    )
