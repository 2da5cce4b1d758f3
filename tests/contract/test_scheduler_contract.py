from __future__ import annotations

import pytest

from testbed.schedulers.fifo import Entry, FifoScheduler
from testbed.testing.scheduler_contract import SchedulerContract


class TestFifo(SchedulerContract):
    def make_scheduler(self, *, max_batch, max_prefill_tokens, kv_capacity_bytes):
        return FifoScheduler(
            max_batch=max_batch, max_prefill_tokens=max_prefill_tokens, kv_capacity_bytes=kv_capacity_bytes
        )


class Forgets(FifoScheduler):
    def next_batch(self):
        return super().next_batch()[:1]


class Doubles(FifoScheduler):
    def next_batch(self):
        batch = super().next_batch()
        return batch + batch[:1]


class Overfills(FifoScheduler):
    def __init__(self, **limits):
        super().__init__(**{**limits, "max_batch": limits["max_batch"] + 1})


class PrefillsTooMuch(FifoScheduler):
    def __init__(self, **limits):
        super().__init__(**{**limits, "max_prefill_tokens": 2 * limits["max_prefill_tokens"]})


class Overcommits(FifoScheduler):
    def __init__(self, **limits):
        super().__init__(**{**limits, "kv_capacity_bytes": 2 * limits["kv_capacity_bytes"]})


class NeverFrees(FifoScheduler):
    def done(self, request):
        pass


class ByArrivalInTheList(FifoScheduler):
    def add(self, entry):
        (self._prefills if entry.is_prefill else self._steps).append(entry)


class SmallFirst(FifoScheduler):
    """Lets whoever fits pass: a large one starves."""

    def next_batch(self):
        self._prefills.sort(key=lambda entry: entry.kv_reserve_bytes)
        return super().next_batch()


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Forgets, "test_every_pass_is_run_once_and_none_is_lost"),
        (Doubles, "test_every_pass_is_run_once_and_none_is_lost"),
        (Overfills, "test_batches_keep_their_limits"),
        (PrefillsTooMuch, "test_batches_keep_their_limits"),
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
        def make_scheduler(self, **limits):
            return broken(**limits)

    with pytest.raises(AssertionError):
        getattr(Suite(), test)()


def entry(request, *, ready=0, tokens=10, kv=10, prefill=True):
    return Entry(ready_ns=ready, request=request, new_tokens=tokens, is_prefill=prefill, kv_reserve_bytes=kv)


def fifo(**limits):
    return FifoScheduler(**{"max_batch": 4, "max_prefill_tokens": 25, "kv_capacity_bytes": 100, **limits})


def requests(batch):
    return [item.request for item in batch]


def test_first_ready_first_served_then_by_request():
    scheduler = fifo()
    for number, ready in ((3, 5), (1, 7), (2, 5)):
        scheduler.add(entry(number, ready=ready, tokens=1))
    assert requests(scheduler.next_batch()) == [2, 3, 1]


def test_a_prefill_that_must_wait_holds_back_later_prefills_but_no_decode_step():
    scheduler = fifo()
    scheduler.add(entry(0, ready=0, tokens=20))
    scheduler.add(entry(1, ready=1, tokens=20))
    scheduler.add(entry(2, ready=2, tokens=1))
    scheduler.add(entry(3, ready=3, tokens=1, prefill=False))
    assert requests(scheduler.next_batch()) == [0, 3]
    assert requests(scheduler.next_batch()) == [1, 2]


def test_a_prompt_longer_than_the_budget_goes_as_the_only_prefill():
    scheduler = fifo()
    scheduler.add(entry(0, tokens=70))
    scheduler.add(entry(1, tokens=1))
    scheduler.add(entry(2, tokens=1, prefill=False))
    assert requests(scheduler.next_batch()) == [0, 2]
    assert requests(scheduler.next_batch()) == [1]


def test_memory_is_claimed_with_the_prefill_at_full_length():
    scheduler = fifo()
    scheduler.add(entry(0, kv=60, tokens=1))
    scheduler.add(entry(1, kv=60, tokens=1))
    scheduler.add(entry(2, kv=10, tokens=1))
    assert requests(scheduler.next_batch()) == [0]
    assert scheduler.kv_reserved_bytes == 60
    scheduler.add(entry(0, prefill=False, kv=60))
    assert requests(scheduler.next_batch()) == [0]  # its own memory is not claimed again
    assert scheduler.kv_reserved_bytes == 60
    scheduler.done(0)
    assert requests(scheduler.next_batch()) == [1, 2]
    assert scheduler.kv_reserved_bytes == 70


def test_a_full_batch_leaves_the_rest_in_their_order():
    scheduler = fifo(max_batch=2)
    for number in range(5):
        scheduler.add(entry(number, tokens=1))
    assert [requests(scheduler.next_batch()) for _ in range(3)] == [[0, 1], [2, 3], [4]]
    assert len(scheduler) == 0
