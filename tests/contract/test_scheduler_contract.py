from __future__ import annotations

import pytest

from testbed.core.work import KvDemand
from testbed.schedulers.earliest_deadline import EarliestDeadlineScheduler
from testbed.schedulers.entry import Entry, Limits
from testbed.schedulers.fair import FairScheduler
from testbed.schedulers.fifo import FifoScheduler
from testbed.schedulers.memory import FullReserve, PagedBlocks
from testbed.schedulers.shortest_first import ShortestFirstScheduler
from testbed.testing.scheduler_contract import SchedulerContract


class TestFifo(SchedulerContract):
    def make_scheduler(self, limits, memory):
        return FifoScheduler(FifoScheduler.Config(), limits=limits, memory=memory)


class TestShortestPromptFirst(SchedulerContract):
    bounded_wait = False

    def make_scheduler(self, limits, memory):
        return ShortestFirstScheduler(ShortestFirstScheduler.Config(), limits=limits, memory=memory)


class TestShortestOutputFirst(SchedulerContract):
    bounded_wait = False

    def make_scheduler(self, limits, memory):
        return ShortestFirstScheduler(ShortestFirstScheduler.Config(by="output"), limits=limits, memory=memory)


class TestEarliestDeadline(SchedulerContract):
    def make_scheduler(self, limits, memory):
        config = EarliestDeadlineScheduler.Config.model_validate({"ttft": "5 ns", "tpot": "2 ns"})
        return EarliestDeadlineScheduler(config, limits=limits, memory=memory)


class TestFair(SchedulerContract):
    def make_scheduler(self, limits, memory):
        return FairScheduler(FairScheduler.Config(), limits=limits, memory=memory)


class Broken(FifoScheduler):
    def __init__(self, limits, memory):
        super().__init__(FifoScheduler.Config(), limits=limits, memory=memory)


class Forgets(Broken):
    def next_batch(self):
        return super().next_batch()[:1]


class Doubles(Broken):
    def next_batch(self):
        batch = super().next_batch()
        return batch + batch[:1]


def loosened(**changes):
    """A scheduler that takes one of its limits for another."""

    class Loose(Broken):
        def __init__(self, limits, memory):
            fields = {name: getattr(limits, name) for name in Limits.__slots__}
            known = {name: change for name, change in changes.items() if fields[name] is not None}
            super().__init__(Limits(**{**fields, **known}), memory)

    return Loose


class Overcommits(Broken):
    def __init__(self, limits, memory):
        super().__init__(limits, FullReserve(2 * memory.capacity_bytes))


class NeverFrees(Broken):
    def done(self, request):
        pass


class StartsAgain(Broken):
    """A chunk forgets the ones before it."""

    def next_batch(self):
        batch = super().next_batch()
        for share in batch:
            if not share.is_last:
                share.entry.done_tokens = 0
        return batch


class ByArrivalInTheList(Broken):
    def order(self, entry):
        return (len(self._queued),)


class SmallFirst(Broken):
    """Lets whoever fits pass: a large one starves."""

    def order(self, entry):
        return (entry.demand.full_bytes, entry.ready_ns, entry.request)


class FreesTwice(Broken):
    """A preempted sequence's blocks are given back, and once more with its end."""

    def done(self, request):
        if request in self.residents:
            self.memory.free_blocks += 1
        super().done(request)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (FreesTwice, "test_with_paged_memory_every_pass_ends_and_no_block_is_lost"),
        (Forgets, "test_with_paged_memory_every_pass_ends_and_no_block_is_lost"),
        (Forgets, "test_every_pass_is_run_once_and_none_is_lost"),
        (Doubles, "test_every_pass_is_run_once_and_none_is_lost"),
        (StartsAgain, "test_every_pass_is_run_once_and_none_is_lost"),
        (loosened(max_batch=5), "test_batches_keep_their_limits"),
        (loosened(max_prefill_tokens=128), "test_batches_keep_their_limits"),
        (loosened(chunk_tokens=40), "test_batches_keep_their_limits"),
        (loosened(max_resident=4), "test_batches_keep_their_limits"),
        (Overcommits, "test_claimed_memory_is_that_of_the_sequences_within_and_never_beyond_the_limit"),
        (Overcommits, "test_it_says_what_can_never_fit"),
        (NeverFrees, "test_every_pass_is_run_once_and_none_is_lost"),
        (NeverFrees, "test_a_sequence_that_has_left_is_not_run"),
        (ByArrivalInTheList, "test_the_order_of_adding_at_one_instant_does_not_matter"),
        (SmallFirst, "test_nobody_waits_while_later_ones_pass_again_and_again"),
    ],
)
def test_the_contract_finds_a_broken_scheduler(broken, test):
    class Suite(SchedulerContract):
        def make_scheduler(self, limits, memory):
            return broken(limits, memory)

    with pytest.raises(AssertionError):
        getattr(Suite(), test)()


def entry(request, *, ready=0, past=0, tokens=10, kv=10, **more):
    demand = KvDemand(max_tokens=10_000, num_layers=1, full_bytes=kv)
    return Entry(request=request, ready_ns=ready, base_tokens=0, end_tokens=past + tokens, demand=demand, **more)


def scheduler(kind=FifoScheduler, config=None, *, kv_capacity_bytes=100, **limits):
    chosen = Limits(**{"max_batch": 4, "max_prefill_tokens": 25, **limits})
    return kind(config or kind.Config(), limits=chosen, memory=FullReserve(kv_capacity_bytes))


def requests(batch):
    return [share.entry.request for share in batch]


def parts(batch):
    return [(share.entry.request, share.past_tokens, share.num_tokens, share.is_last) for share in batch]


def served(queue, number, **fields):
    """The sequence has had its prefill of one token."""
    queue.add(entry(number, tokens=1, **fields))
    assert requests(queue.next_batch()) == [number]


def test_first_ready_first_served_then_by_request():
    queue = scheduler()
    for number, ready in ((3, 5), (1, 7), (2, 5)):
        queue.add(entry(number, ready=ready, tokens=1))
    assert requests(queue.next_batch()) == [2, 3, 1]


def test_a_prefill_that_must_wait_holds_back_later_prefills_but_no_decode_step():
    queue = scheduler()
    served(queue, 3)
    queue.add(entry(0, ready=0, tokens=20))
    queue.add(entry(1, ready=1, tokens=20))
    queue.add(entry(2, ready=2, tokens=1))
    queue.add(entry(3, ready=3, past=1, tokens=1))
    assert requests(queue.next_batch()) == [0, 3]
    assert requests(queue.next_batch()) == [1, 2]


def test_a_prompt_longer_than_the_budget_goes_as_the_only_prefill():
    queue = scheduler()
    served(queue, 2)
    queue.add(entry(0, tokens=70))
    queue.add(entry(1, tokens=1))
    queue.add(entry(2, past=1, tokens=1))
    assert requests(queue.next_batch()) == [0, 2]
    assert requests(queue.next_batch()) == [1]


def test_memory_is_claimed_with_the_prefill_at_full_length():
    queue = scheduler()
    queue.add(entry(0, kv=60, tokens=1))
    queue.add(entry(1, kv=60, tokens=1))
    queue.add(entry(2, kv=10, tokens=1))
    assert requests(queue.next_batch()) == [0]
    assert queue.kv_claimed_bytes == 60
    queue.add(entry(0, past=1, tokens=1, kv=60))
    assert requests(queue.next_batch()) == [0]  # its own memory is not claimed again
    assert queue.kv_claimed_bytes == 60
    queue.done(0)
    assert requests(queue.next_batch()) == [1, 2]
    assert queue.kv_claimed_bytes == 70


def test_a_full_batch_leaves_the_rest_in_their_order():
    queue = scheduler(max_batch=2)
    for number in range(5):
        queue.add(entry(number, tokens=1))
    assert [requests(queue.next_batch()) for _ in range(3)] == [[0, 1], [2, 3], [4]]
    assert len(queue) == 0


def test_a_long_prompt_is_cut_to_what_the_iteration_has_left_and_goes_on_before_all_others():
    queue = scheduler(chunk_tokens=10)
    queue.add(entry(0, ready=0, tokens=6))
    queue.add(entry(1, ready=1, tokens=12))
    queue.add(entry(2, ready=2, tokens=3))
    assert parts(queue.next_batch()) == [(0, 0, 6, True), (1, 0, 4, False)]
    assert parts(queue.next_batch()) == [(1, 4, 8, True), (2, 0, 2, False)]
    assert parts(queue.next_batch()) == [(2, 2, 1, True)]
    assert queue.kv_tokens == 21


def test_steps_have_their_tokens_whoever_goes_first():
    # Ten tokens, two steps that became ready after a long prompt: eight are left for it; not so under `prefill`.
    expected = {
        "arrival": [(5, 0, 8, False), (0, 1, 1, True), (1, 1, 1, True)],
        "decode": [(0, 1, 1, True), (1, 1, 1, True), (5, 0, 8, False)],
        "prefill": [(5, 0, 10, False)],
    }
    for priority, batch in expected.items():
        queue = scheduler(chunk_tokens=10, priority=priority)
        for number in (0, 1):
            served(queue, number)
        queue.add(entry(5, ready=1, tokens=30))
        for number in (0, 1):
            queue.add(entry(number, ready=2, past=1, tokens=1))
        assert parts(queue.next_batch()) == batch


def test_without_chunks_priority_decides_who_gets_the_last_seats():
    expected = {"arrival": [0, 7, 1], "decode": [0, 1, 7], "prefill": [7, 8, 0]}
    for priority, batch in expected.items():
        queue = scheduler(max_batch=3, priority=priority)
        for number in (0, 1):
            served(queue, number)
        for number, ready, past in ((0, 1, 1), (7, 2, 0), (1, 3, 1), (8, 4, 0)):
            queue.add(entry(number, ready=ready, past=past, tokens=1))
        assert requests(queue.next_batch()) == batch


def test_more_steps_than_tokens_leave_none_for_prefills():
    queue = scheduler(chunk_tokens=2)
    for number in range(3):
        served(queue, number)
    queue.add(entry(9, ready=0, tokens=5))
    for number in range(3):
        queue.add(entry(number, ready=1, past=1, tokens=1))
    assert parts(queue.next_batch()) == [(0, 1, 1, True), (1, 1, 1, True)]
    assert parts(queue.next_batch()) == [(9, 0, 1, False), (2, 1, 1, True)]


def test_no_more_sequences_hold_kv_than_may_be_resident():
    queue = scheduler(max_resident=2)
    for number in range(3):
        queue.add(entry(number, tokens=1))
    assert requests(queue.next_batch()) == [0, 1]
    assert queue.next_batch() == []  # the two hold theirs between their passes too
    queue.done(0)
    assert requests(queue.next_batch()) == [2]


def test_shortest_prompt_first_but_what_is_begun_goes_on():
    queue = scheduler(ShortestFirstScheduler, chunk_tokens=10)
    queue.add(entry(0, ready=0, tokens=25))
    assert parts(queue.next_batch()) == [(0, 0, 10, False)]
    queue.add(entry(1, ready=1, tokens=9))
    queue.add(entry(2, ready=2, tokens=4))
    assert parts(queue.next_batch()) == [(0, 10, 10, False)]
    assert parts(queue.next_batch()) == [(0, 20, 5, True), (2, 0, 4, True), (1, 0, 1, False)]


def test_shortest_answer_first():
    queue = scheduler(ShortestFirstScheduler, ShortestFirstScheduler.Config(by="output"), max_batch=1)
    for number, tokens, output in ((0, 2, 30), (1, 20, 5), (2, 1, 30)):
        queue.add(entry(number, tokens=tokens, max_output_tokens=output))
    assert [requests(queue.next_batch()) for _ in range(3)] == [[1], [0], [2]]


def test_the_earliest_deadline_goes_first_be_it_of_a_first_token_or_a_later_one():
    config = EarliestDeadlineScheduler.Config.model_validate({"ttft": "100 ns", "tpot": "10 ns"})
    queue = scheduler(EarliestDeadlineScheduler, config, max_batch=1)
    served(queue, 0)
    queue.add(entry(0, ready=95, since_ns=93, is_first=False, past=1, tokens=1))  # due at 103
    queue.add(entry(1, ready=30, since_ns=1))  # due at 101
    queue.add(entry(2, ready=20, since_ns=4))  # due at 104
    assert [requests(queue.next_batch()) for _ in range(3)] == [[1], [0], [2]]


def test_the_device_that_has_been_served_least_goes_first():
    queue = scheduler(FairScheduler, max_batch=2)
    queue.add(entry(0, ready=0, device=7, tokens=20))
    assert requests(queue.next_batch()) == [0]
    queue.add(entry(1, ready=1, device=7, tokens=5))
    queue.add(entry(2, ready=2, device=8, tokens=5))
    queue.add(entry(3, ready=3, device=8, tokens=5))
    assert requests(queue.next_batch()) == [2, 3]  # both of device 8: an order holds for one forming
    queue.add(entry(4, ready=4, device=8, tokens=11))
    queue.add(entry(5, ready=5, device=8, tokens=1))
    assert requests(queue.next_batch()) == [4, 5]  # 10 tokens against 20
    queue.add(entry(6, ready=6, device=8, tokens=1))
    assert requests(queue.next_batch()) == [1, 6]


def test_a_step_that_preempts_its_own_sequence_may_begin_again_at_once():
    memory = PagedBlocks(num_blocks=4, block_tokens=2, block_bytes=1)
    limits = Limits(max_batch=4, max_prefill_tokens=100, chunk_tokens=3)
    queue = FifoScheduler(FifoScheduler.Config(), limits=limits, memory=memory)
    for number in (0, 1):
        queue.add(entry(number, ready=number, tokens=4))
    while len(queue):
        queue.next_batch()
    queue.add(entry(1, ready=9, past=4, tokens=1))  # needs a third block; 0, which has the others, is on its device
    assert parts(queue.next_batch()) == [(1, 0, 3, False)]
    assert [move.request for move in queue.take_moves()] == [1, 1]
    assert queue.next_batch() == []  # the rest needs a third block too, and prompts wait for blocks
    queue.done(0)
    assert parts(queue.next_batch()) == [(1, 3, 2, True)]
    queue.check()
