"""The server's loop with a made-up worker: what a batch holds, how long it takes, who gets which result."""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.actors.cloud import BackStep, Iteration
from testbed.actors.edge import Payload, Session, Step
from testbed.codecs.named import RawFloat32
from testbed.core.events import IterationEnded
from testbed.core.work import KvDemand, Ticket
from testbed.schedulers.entry import Limits
from testbed.schedulers.fifo import FifoScheduler
from testbed.schedulers.memory import FullReserve
from testbed.sim.kernel import BusyTime, Clock
from testbed.sim.server import Asked, Server

DECODE_NS, BACK_NS = 3, 100  # of a batch; and one more for each sequence


@dataclass
class Worker:
    """Takes 3 + 100 + n ns for n sequences; a sequence's token is 1000 and its request's number."""

    batches: list[list[int]] = field(default_factory=list)

    def decode_work(self, item):
        return 0

    def start(self, batch, swapped_bytes):
        requests = [part.item.session.request for part in batch]
        self.batches.append(requests)
        ticket = Ticket(BACK_NS + len(requests), lambda: [1000 + request for request in requests])
        return Iteration(decode_ns=DECODE_NS, back=ticket)


class Rig:
    def __init__(self, **limits):
        self.clock, self.worker, self.events, self.results = Clock(), Worker(), [], []
        memory = FullReserve(limits.pop("kv_capacity_bytes", 1000))
        chosen = Limits(**{"max_batch": 4, "max_prefill_tokens": 100, **limits})
        scheduler = FifoScheduler(FifoScheduler.Config(), limits=chosen, memory=memory)
        self.server = Server(
            self.clock, 7, worker=self.worker, make_scheduler=lambda: scheduler, emit=self.events.append
        )

    def sequence(self, request, *, at_ns=0, passes=1, prompt=10, kv=10):
        """A sequence whose next pass is ready as soon as the last one is over."""
        self.clock.process(self._sequence(request, at_ns, passes, prompt, kv))

    def _sequence(self, request, at_ns, passes, prompt, kv):
        yield self.clock.timeout(at_ns)
        self.server.enter(request)
        for number in range(passes):
            new, past = (prompt, 0) if number == 0 else (1, prompt + number - 1)
            asked_ns = self.clock.now_ns
            served = yield self.server.submit(step(request, new, past), demand(kv), asked(past))
            self.results.append((request, asked_ns, self.clock.now_ns, served))
        self.server.leave(request)

    def run(self):
        self.clock.run()
        return self


def asked(past):
    return Asked(device=0, since_ns=0, is_first=past == 0, max_output_tokens=100)


def demand(kv):
    return KvDemand(max_tokens=1000, num_layers=1, full_bytes=kv)


def step(request, new, past):
    session = Session(
        request=request,
        sampling_seed=0,
        split=1,
        codec_name="raw-float32",
        codec=RawFloat32(),
        size_of=lambda num_tokens, _past: RawFloat32().nbytes(num_tokens, 64),
    )
    payload = Payload(size_bytes=4, message=None, encode_ns=0)
    return BackStep(
        session=session, step=Step(num_tokens=new, past_tokens=past, tokens=None), payload=payload, real=False
    )


def test_one_pass():
    rig = Rig()
    rig.sequence(3, at_ns=50, prompt=8)
    rig.run()
    ((request, asked_ns, now_ns, served),) = rig.results
    assert (request, asked_ns, now_ns) == (3, 50, 50 + DECODE_NS + BACK_NS + 1)
    assert (served.token, served.decode_ns, served.back_ns) == (1003, DECODE_NS, BACK_NS + 1)
    assert rig.events == [
        IterationEnded(
            time_ns=154,
            server=7,
            iteration=0,
            start_ns=50,
            num_sequences=1,
            prefill_tokens=8,
            decode_tokens=0,
            kv_tokens=8,
            num_waiting=0,
        )
    ]
    assert rig.server.num_outstanding == 0


def test_sequences_join_and_leave_between_iterations():
    rig = Rig()
    rig.sequence(0, passes=3)
    rig.sequence(1, at_ns=10, passes=1)
    rig.sequence(2, at_ns=110, passes=2)
    rig.run()
    assert rig.worker.batches == [[0], [1, 0], [2, 0], [2]]
    assert [event.kv_tokens for event in rig.events] == [10, 10 + 11, 10 + 12, 11]  # left ones hold none
    assert [(event.prefill_tokens, event.decode_tokens) for event in rig.events] == [(10, 0), (10, 1), (10, 1), (0, 1)]


def test_everyone_gets_the_token_of_their_own_place():
    rig = Rig()
    for request in (5, 2, 8):
        rig.sequence(request, passes=2)
    rig.run()
    assert [(request, served.token) for request, _, _, served in rig.results] == [
        (request, 1000 + request) for request in (2, 5, 8, 2, 5, 8)
    ]


def test_iterations_follow_each_other_without_overlap_and_busy_time_is_their_sum():
    rig = Rig(max_batch=2)
    for request in range(5):
        rig.sequence(request, at_ns=7 * request, passes=3)
    rig.run()
    ends_ns = 0
    for event in rig.events:
        assert event.start_ns >= ends_ns
        ends_ns = event.time_ns
    assert rig.server.busy.until(ends_ns) == sum(event.time_ns - event.start_ns for event in rig.events)
    assert max(len(batch) for batch in rig.worker.batches) == 2
    assert [event.iteration for event in rig.events] == list(range(len(rig.events)))


def test_the_waiting_are_those_ready_when_the_batch_was_formed():
    rig = Rig(max_batch=1)
    rig.sequence(0)
    rig.sequence(1)
    rig.sequence(2, at_ns=20)  # during the first iteration, which it did not wait for
    rig.run()
    assert [event.num_waiting for event in rig.events] == [1, 1, 0]


def test_reserved_memory_is_kept_within_its_limit_and_given_back():
    rig = Rig(kv_capacity_bytes=100)
    for request in range(4):
        rig.sequence(request, passes=2, kv=60)
    rig.run()
    assert rig.worker.batches == [[0], [0], [1], [1], [2], [2], [3], [3]]
    assert rig.server.peak_kv_bytes == 60
    assert not rig.server.fits_ever(demand(101))
    assert rig.server.fits_ever(demand(100))


def test_a_sequence_that_leaves_while_it_waits_is_never_run():
    rig = Rig(max_batch=1)
    rig.sequence(0)

    def impatient():
        rig.server.enter(1)
        rig.server.submit(step(1, 10, 0), demand(10), asked(0))
        yield rig.clock.timeout(50)
        rig.server.leave(1)

    rig.clock.process(impatient())
    rig.run()
    assert rig.worker.batches == [[0]]
    assert rig.server.num_outstanding == 0


def test_an_idle_server_wakes_at_once():
    rig = Rig()
    rig.sequence(0)
    rig.sequence(1, at_ns=10**9)
    rig.run()
    assert [event.start_ns for event in rig.events] == [0, 10**9]


def test_a_stage_under_way_is_busy_up_to_now():
    busy = BusyTime()
    busy.start(10, 100)
    assert [busy.until(now_ns) for now_ns in (10, 60, 110, 500)] == [0, 50, 100, 100]
    busy.start(500, 20)
    assert busy.until(510) == 110
