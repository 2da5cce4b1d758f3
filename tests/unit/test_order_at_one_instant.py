"""What comes first when several things happen at one nanosecond: arrivals, ends, admission, iterations, batches."""

from __future__ import annotations

import pytest

from testbed.core.events import EventDigest, IterationEnded, RequestAdmitted
from testbed.sim.kernel import Clock, Gate, Rank
from tests.sim_runs import MS, ends, group, of_kind, run_events, scenario, server, spans_of, workload


def times(*texts):
    return workload(arrivals={"kind": "times", "times": list(texts)})


def test_ranks_order_an_instant_whatever_was_scheduled_first():
    clock, seen = Clock(), []
    for rank in (Rank.BATCH_FORMATION, Rank.ITERATION_END, Rank.ADMISSION):
        clock.at(5, rank).callbacks.append(lambda _, rank=rank: seen.append(rank))
    clock.timeout(5).callbacks.append(lambda _: seen.append("normal"))
    clock.run()
    assert seen == ["normal", Rank.ADMISSION, Rank.ITERATION_END, Rank.BATCH_FORMATION]


def test_what_an_iterations_end_sets_off_comes_before_the_next_batch():
    clock, seen = Clock(), []
    clock.at(5, Rank.BATCH_FORMATION).callbacks.append(lambda _: seen.append("formation"))
    clock.at(5, Rank.ITERATION_END).callbacks.append(
        lambda _: clock.event().succeed().callbacks.append(lambda _: seen.append("hand out"))
    )
    clock.run()
    assert seen == ["hand out", "formation"]


def test_a_gate_lets_those_of_one_instant_pass_by_number():
    clock, seen = Clock(), []
    gate = Gate(clock, Rank.ADMISSION)

    def ask(number, delay_ns, then=None):
        yield clock.timeout(delay_ns)
        yield gate.passage(number)
        seen.append((clock.now_ns, number))
        if then is not None:
            clock.process(ask(then, 0))

    for number, delay_ns, then in ((7, 5, None), (4, 5, 1), (6, 5, None), (9, 4, None), (2, 8, None)):
        clock.process(ask(number, delay_ns, then))
    clock.run()
    assert seen == [(4, 9), (5, 4), (5, 6), (5, 7), (5, 1), (8, 2)]


def test_messages_that_arrive_together_make_one_batch_in_the_order_of_their_requests():
    events = run_events(scenario(fleet=[group(count=3)]))
    assert {item.num_sequences for item in of_kind(events, IterationEnded)} == {3}
    assert len(of_kind(events, IterationEnded)) == 4


@pytest.mark.parametrize(("late_ns", "joins"), [(-1, True), (0, True), (1, False)])
def test_a_batch_holds_what_arrives_at_the_instant_at_which_it_is_formed(late_ns, joins):
    """The second device's message comes when the first one's prefill, of one server, ends, or a nanosecond beside."""
    early = group("early", workload=times("3 ms"))
    alone = run_events(scenario(policy="cloud-only", fleet=[early]))
    first = of_kind(alone, IterationEnded)[0]
    way_up = first.start_ns - 3 * MS
    late = group("late", workload=times(f"{first.time_ns - way_up + late_ns} ns"))
    iterations = of_kind(run_events(scenario(policy="cloud-only", fleet=[early, late])), IterationEnded)
    second = iterations[1]
    assert (second.start_ns, second.decode_tokens) == (first.time_ns, 1)
    assert (second.num_sequences, second.prefill_tokens) == ((2, 5) if joins else (1, 0))
    assert not joins or second.num_waiting == 0


def test_two_servers_iterations_that_end_together_do_not_disturb_each_other():
    racks = [{"server": server(), "count": 2}]
    together = of_kind(run_events(scenario(fleet=[group(count=2)], servers=racks)), IterationEnded)
    alone = of_kind(run_events(scenario()), IterationEnded)
    for number in (0, 1):
        mine = [(item.start_ns, item.time_ns) for item in together if item.server == number]
        assert mine == [(item.start_ns, item.time_ns) for item in alone]


def test_admission_knows_of_every_end_of_its_instant_and_goes_by_number():
    """A device's turn comes to request 3 by the end of request 2, which held server 2; request 4 comes just then.

    Whatever was scheduled first, request 3 goes to server 0 and request 4 to server 1.
    """
    racks = [{"server": server(), "count": 3}]
    short = {**times("0 s"), "output_tokens": {"law": "fixed", "value": 1}}
    fleet = [group("short", count=2, workload=short), group("pair", workload=times("0 s", "1 ms"))]
    before = run_events(scenario(fleet=fleet, servers=racks))
    assert [event.server for event in of_kind(before, RequestAdmitted)] == [0, 1, 2, 0]
    end_ns = ends(before)[2].time_ns
    fleet.append(group("third", workload=times(f"{end_ns} ns")))
    after = run_events(scenario(fleet=fleet, servers=racks))
    admitted = [(event.time_ns, event.request, event.server) for event in of_kind(after, RequestAdmitted)]
    assert admitted[3:] == [(end_ns, 3, 0), (end_ns, 4, 1)]
    assert spans_of(after, 4)[0][2] == end_ns


def test_requests_of_one_instant_have_their_devices_order():
    events = run_events(scenario(fleet=[group("b", count=2), group("a", count=2)], servers=[{"server": server()}]))
    assert [event.request for event in of_kind(events, RequestAdmitted)] == [0, 1, 2, 3]


def test_events_come_in_the_order_of_time():
    events = run_events(scenario(fleet=[group(count=4)], workload=times("0 s", "0 s", "2 ms")))
    assert [event.time_ns for event in events] == sorted(event.time_ns for event in events)
    digest = EventDigest()
    for event in events:
        digest(event)
    assert digest.num_events == len(events)
