"""What every scheduler must hold: subclass `SchedulerContract` in a test module, say how one is made, run pytest.

class TestMine(SchedulerContract):
    def make_scheduler(self, limits, memory):
        return MyScheduler(MyScheduler.Config(), limits=limits, memory=memory)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, ClassVar

from testbed.core.rng import Stream
from testbed.core.work import KvDemand
from testbed.schedulers.entry import Entry, Limits, Priority, Share
from testbed.schedulers.memory import FullReserve, KvMemory, PagedBlocks

if TYPE_CHECKING:
    from testbed.sim.server import Scheduler

MAX_BATCH, MAX_PREFILL_TOKENS, CHUNK_TOKENS, MAX_RESIDENT, KV_CAPACITY_BYTES = 4, 64, 13, 3, 1000
NUM_CASES = 3
NUM_DEVICES = 5
NUM_BLOCKS, BLOCK_TOKENS = 14, 8  # one sequence of the longest kind has room
MOST_ITERATIONS = 5000
PRIORITIES: tuple[Priority, ...] = ("arrival", "decode", "prefill")
LIMITS = [
    Limits(
        max_batch=MAX_BATCH,
        max_prefill_tokens=MAX_PREFILL_TOKENS,
        chunk_tokens=chunk,
        priority=priority,
        max_resident=resident,
    )
    for (chunk, resident), priority in product(((None, None), (CHUNK_TOKENS, MAX_RESIDENT)), PRIORITIES)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequencePlan:
    """One made-up sequence: when its prefill is ready, and what it takes."""

    request: int
    ready: int  # the iteration before which its prefill is ready
    prompt_tokens: int
    kv_bytes: int  # at its full length
    num_passes: int

    @property
    def demand(self) -> KvDemand:
        return KvDemand(max_tokens=self.prompt_tokens + self.num_passes, num_layers=1, full_bytes=self.kv_bytes)

    def span(self, number: int) -> tuple[int, int]:
        """The positions of a pass."""
        end = self.prompt_tokens + number
        return (0 if number == 0 else end - 1, end)


@dataclass(slots=True, kw_only=True)
class History:
    """What a scheduler did: the batches, what it claimed at each, and the passes that each sequence has had."""

    batches: list[list[Share]] = field(default_factory=list)
    claimed_bytes: list[int] = field(default_factory=list)
    resident: list[set[int]] = field(default_factory=list)  # had a share, and had not left when the batch was formed
    passes: dict[int, int] = field(default_factory=dict)

    def rows(self) -> list[list[tuple[int, int, int]]]:
        return [
            [(share.entry.request, share.past_tokens, share.num_tokens) for share in batch] for batch in self.batches
        ]


def random_sequences(case: int, count: int = 16) -> list[SequencePlan]:
    """Sequences that each fit the limits alone, except that some prompts are longer than an iteration's prefill."""
    draws = Stream.named(case, "scheduler contract")

    def below(bound: int, what: int, request: int) -> int:
        return draws.below(bound, what, request)

    return [
        SequencePlan(
            request=request,
            ready=below(12, 0, request),
            prompt_tokens=1 + below(MAX_PREFILL_TOKENS * 3 // 2, 1, request),
            kv_bytes=1 + below(KV_CAPACITY_BYTES * 2 // 3, 2, request),
            num_passes=1 + below(6, 3, request),
        )
        for request in range(count)
    ]


class SchedulerContract(ABC):
    """Nothing lost or doubled, limits kept, the same answer whatever the order of adding.

    With `bounded_wait` nobody starves either: set it to False where later sequences may pass for ever.
    """

    bounded_wait: ClassVar[bool] = True

    @abstractmethod
    def make_scheduler(self, limits: Limits, memory: KvMemory) -> Scheduler:
        """A fresh scheduler with these limits on this memory."""

    def fresh(self, limits: Limits = LIMITS[0]) -> Scheduler:
        return self.make_scheduler(limits, FullReserve(KV_CAPACITY_BYTES))

    def drive(self, sequences: Sequence[SequencePlan], limits: Limits, *, backwards: bool = False) -> History:
        """Serve them to the end, an iteration after the other; fails when the scheduler stops with some left."""
        scheduler, history = self.fresh(limits), History(passes={item.request: 0 for item in sequences})
        by_request = {item.request: item for item in sequences}
        resident: set[int] = set()
        ready = {item.request: item.ready for item in sequences}
        most = sum(item.prompt_tokens + item.num_passes for item in sequences) + max(ready.values())
        for iteration in range(most + 1):  # each runs a token at least, or waits for the next to come
            if not ready and not len(scheduler):
                break
            added = sorted((request for request, when in ready.items() if when <= iteration), reverse=backwards)
            for request in added:
                del ready[request]
                scheduler.add(_entry(by_request[request], history.passes[request], iteration))
            batch = scheduler.next_batch()
            assert batch or any(when > iteration for when in ready.values()), "nobody runs, and nobody will come"
            resident |= {share.entry.request for share in batch}
            history.batches.append(batch)
            history.claimed_bytes.append(scheduler.kv_claimed_bytes)
            history.resident.append(set(resident))
            for share in batch:
                request = share.entry.request
                if not share.is_last:
                    continue
                history.passes[request] += 1
                if history.passes[request] < by_request[request].num_passes:
                    ready[request] = iteration + 1
                else:
                    scheduler.done(request)
                    resident.discard(request)
        assert not ready, "some passes never ran"
        assert len(scheduler) == 0, "sequences were left waiting for ever"
        assert scheduler.kv_claimed_bytes == 0, "memory of sequences that have left is still claimed"
        assert scheduler.kv_tokens == 0, "tokens of sequences that have left are still counted"
        return history

    def histories(self) -> list[tuple[dict[int, SequencePlan], Limits, History]]:
        """One random case for each of the limits, and several for the plain ones."""
        cases = [*enumerate(LIMITS), *((case, LIMITS[0]) for case in range(len(LIMITS), len(LIMITS) + NUM_CASES))]
        found = []
        for case, limits in cases:
            sequences = random_sequences(case)
            found.append(({item.request: item for item in sequences}, limits, self.drive(sequences, limits)))
        return found

    def test_every_pass_is_run_once_and_none_is_lost(self) -> None:
        for sequences, _, history in self.histories():
            reached = dict.fromkeys(sequences, (0, 0))  # passes through, positions run
            for batch in history.batches:
                assert len({share.entry.request for share in batch}) == len(batch), "a sequence is twice in a batch"
                for share in batch:
                    number, past = reached[share.entry.request]
                    start, end = sequences[share.entry.request].span(number)
                    assert share.past_tokens == past, "a position is left out or run twice"
                    assert share.num_tokens > 0
                    assert share.is_first == (past == start)
                    assert share.is_last == (past + share.num_tokens == end)
                    assert past + share.num_tokens <= end
                    reached[share.entry.request] = (number + share.is_last, past + share.num_tokens)
            assert history.passes == {request: item.num_passes for request, item in sequences.items()}

    def test_batches_keep_their_limits(self) -> None:
        for _, limits, history in self.histories():
            for batch, resident in zip(history.batches, history.resident, strict=True):
                prefills = [share.num_tokens for share in batch if share.is_prefill]
                assert len(batch) <= limits.max_batch
                assert limits.max_resident is None or len(resident) <= limits.max_resident
                if limits.chunk_tokens is None:
                    assert sum(prefills) <= limits.max_prefill_tokens or len(prefills) == 1
                    assert all(share.is_last for share in batch), "without chunks a pass runs whole"
                else:
                    assert sum(prefills) <= limits.max_prefill_tokens
                    assert sum(share.num_tokens for share in batch) <= limits.chunk_tokens

    def test_claimed_memory_is_that_of_the_sequences_within_and_never_beyond_the_limit(self) -> None:
        for sequences, _, history in self.histories():
            for claimed_bytes, resident in zip(history.claimed_bytes, history.resident, strict=True):
                assert claimed_bytes == sum(sequences[request].kv_bytes for request in resident) <= KV_CAPACITY_BYTES

    def test_the_order_of_adding_at_one_instant_does_not_matter(self) -> None:
        for case, limits in enumerate(LIMITS):
            sequences = random_sequences(case)
            assert self.drive(sequences, limits).rows() == self.drive(sequences, limits, backwards=True).rows()

    def test_there_is_always_a_batch_while_a_sequence_could_run(self) -> None:
        for limits in LIMITS:
            scheduler = self.fresh(limits)
            assert scheduler.next_batch() == []
            scheduler.add(_entry(random_sequences(0)[0], 0, 0))
            while len(scheduler):
                assert len(scheduler.next_batch()) == 1
            assert scheduler.next_batch() == []

    def test_nobody_waits_while_later_ones_pass_again_and_again(self) -> None:
        """A prefill as large as the cache gets in although small ones keep coming, if the scheduler promises that."""
        if not self.bounded_wait:
            return
        scheduler = self.fresh()
        small = [
            SequencePlan(request=number, ready=0, prompt_tokens=1, kv_bytes=400, num_passes=2)
            for number in range(1, 20)
        ]
        large = SequencePlan(request=0, ready=1, prompt_tokens=1, kv_bytes=KV_CAPACITY_BYTES, num_passes=1)
        scheduler.add(_entry(small[0], 0, 0))
        running = {share.entry.request for share in scheduler.next_batch()}
        for iteration, item in enumerate(small[1:], 1):
            if iteration == 1:
                scheduler.add(_entry(large, 0, iteration))
            scheduler.add(_entry(item, 0, iteration))
            for request in running:
                scheduler.done(request)
            running = {share.entry.request for share in scheduler.next_batch()}
            if large.request in running:
                return
        raise AssertionError("a sequence that fits waited while many later ones were served")

    def test_a_sequence_that_has_left_is_not_run(self) -> None:
        for limits in LIMITS:
            scheduler = self.fresh(limits)
            first, second = random_sequences(1)[:2]
            scheduler.add(_entry(first, 0, 0))
            scheduler.next_batch()  # through, or partly done
            scheduler.done(first.request)
            assert scheduler.kv_claimed_bytes == scheduler.kv_tokens == len(scheduler) == 0
            scheduler.add(_entry(first, 0, 1))
            scheduler.add(_entry(second, 0, 1))
            scheduler.done(first.request)
            assert [share.entry.request for share in scheduler.next_batch()] == [second.request]

    def test_with_paged_memory_every_pass_ends_and_no_block_is_lost(self) -> None:
        """Sequences preempted or not: at every batch those within hold what they have claimed, and all end."""
        for case, (limits, swap) in enumerate(product(LIMITS, (False, True))):
            memory = PagedBlocks(num_blocks=NUM_BLOCKS, block_tokens=BLOCK_TOKENS, block_bytes=1)
            scheduler = self.make_scheduler(replace(limits, preempts_by_swap=swap), memory)
            sequences = {item.request: item for item in random_sequences(case)}
            passes, iteration = dict.fromkeys(sequences, 0), 0
            ready = {request: item.ready for request, item in sequences.items()}
            while ready or len(scheduler):
                for request in sorted(request for request, when in ready.items() if when <= iteration):
                    del ready[request]
                    scheduler.add(_entry(sequences[request], passes[request], iteration))
                batch = scheduler.next_batch()
                assert batch or any(when > iteration for when in ready.values()), "nobody runs, and nobody will come"
                scheduler.check()
                memory.check()
                assert scheduler.kv_claimed_bytes <= NUM_BLOCKS
                for share in batch:
                    request = share.entry.request
                    passes[request] += share.is_last
                    if share.is_last and passes[request] == sequences[request].num_passes:
                        scheduler.done(request)
                    elif share.is_last:
                        ready[request] = iteration + 1 + request % 3  # its device takes some time
                iteration += 1
                assert iteration < MOST_ITERATIONS, "sequences take each other's memory for ever"
            assert passes == {request: item.num_passes for request, item in sequences.items()}
            assert scheduler.kv_claimed_bytes == scheduler.kv_tokens == 0
            assert memory.free_blocks == NUM_BLOCKS

    def test_it_says_what_can_never_fit(self) -> None:
        scheduler = self.fresh()
        fits = KvDemand(max_tokens=1, num_layers=1, full_bytes=KV_CAPACITY_BYTES)
        assert scheduler.fits_ever(fits)
        assert not scheduler.fits_ever(KvDemand(max_tokens=1, num_layers=1, full_bytes=KV_CAPACITY_BYTES + 1))


def _entry(item: SequencePlan, num_passes: int, now: int) -> Entry:
    return Entry(
        request=item.request,
        ready_ns=now,
        base_tokens=0,
        end_tokens=item.span(num_passes)[1],
        demand=item.demand,
        device=item.request % NUM_DEVICES,
        since_ns=now,
        is_first=num_passes == 0,
        max_output_tokens=item.num_passes,
    )
