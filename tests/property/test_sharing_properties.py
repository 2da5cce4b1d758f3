"""What holds on shared air whatever the discipline: conservation, capacity, order, and a lone link as if unshared."""

from __future__ import annotations

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.core.registry import DISCIPLINES, TRANSPORTS
from testbed.core.units import BITS_PER_BYTE, NS_PER_S
from testbed.network_models.build import build_access
from testbed.network_models.exercise import Sent as Message
from testbed.network_models.exercise import exercise
from testbed.network_models.rates.segments import finish_ns
from testbed.network_models.sharing.cell import Cell, Seat
from testbed.network_models.sharing.work import ALL, Share, capacity, serve, work_of
from testbed.scenarios.cells import Cells
from testbed.scenarios.profiles import LinkProfile
from tests.shared_air import Sent, Steps, discipline_of, share

MS = 1_000_000
KINDS = sorted(DISCIPLINES)

rates = st.builds(
    lambda values, step_ns: Steps(*values, max(values), step_ns=step_ns),  # never zero for good
    st.lists(st.sampled_from([0, 1_000_000, 7_777_777, 50_000_000]), min_size=1, max_size=3),
    st.integers(100_000, 3 * MS),
).filter(lambda rate: any(rate._rates_bps))
jobs = st.lists(
    st.builds(
        Sent,
        time_ns=st.integers(0, 20 * MS),
        member=st.integers(0, 3),
        num_bytes=st.integers(1, 6000),
    ),
    min_size=1,
    max_size=25,
).map(sorted)


@settings(deadline=None, max_examples=30)
@given(rate=rates, sizes=st.lists(st.integers(1, 1500), min_size=1, max_size=8), start_ns=st.integers(0, 5 * MS))
def test_the_whole_share_is_the_links_own_arithmetic(rate, sizes, start_ns):
    now_ns = start_ns
    for size_bytes in sizes:
        ended_ns, left = serve(rate, ALL, work_of(size_bytes), now_ns, 1 << 60)
        assert left == 0
        assert ended_ns == finish_ns(rate, now_ns, size_bytes)
        now_ns = ended_ns


@settings(deadline=None, max_examples=30)
@given(
    rate=rates, weight=st.integers(1, 5), others=st.integers(0, 9), cuts=st.lists(st.integers(1, 9 * MS), max_size=4)
)
def test_pausing_costs_less_than_a_nanosecond_a_pause(rate, weight, others, cuts):
    part, work = Share(weight, weight + others), work_of(5200)
    end_ns, _ = serve(rate, part, work, 0, 1 << 60)
    now_ns = 0
    for cut_ns in sorted(cuts):
        if now_ns < cut_ns < end_ns:
            now_ns, work = serve(rate, part, work, now_ns, cut_ns)
    late_ns = serve(rate, part, work, now_ns, 1 << 60)[0] - end_ns
    assert late_ns >= 0
    if not any(rate.segment(time_ns).rate_bps == 0 for time_ns in range(0, end_ns, 100_000)):
        assert late_ns <= len(cuts) + 1


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=30)
@given(
    members=st.lists(rates, min_size=4, max_size=4),
    sent=jobs,
    weights=st.lists(st.integers(1, 5), min_size=4, max_size=4),
)
def test_no_byte_is_lost_and_nothing_beats_its_rate(kind, members, sent, weights):
    served, air, live = share(discipline_of(kind), members, sent, weights=weights)
    assert len(served) == len(sent)
    end_ns = max(told.end_ns for told in served)
    assert sum(member.backlog_bytes(end_ns) for member in live) == 0
    for job, told in zip(sent, served, strict=True):
        assert job.time_ns <= told.start_ns < told.end_ns
        bits = job.num_bytes * BITS_PER_BYTE * NS_PER_S
        assert bits <= capacity(members[job.member], told.start_ns, told.end_ns)
        assert 1 <= told.num_contending <= 4
    for place in range(4):  # a member's own jobs keep their order
        ends = [told.end_ns for job, told in zip(sent, served, strict=True) if job.member == place]
        assert ends == sorted(ends)
    # Air is never given twice, and by the disciplines that grant all of it never wasted: rounding apart.
    given_ns = sum(member.air_ns(end_ns) for member in live)
    assert given_ns <= air.busy_ns(end_ns) <= given_ns + 4 * (2 * len(sent) + end_ns // MS + 1)
    assert air.busy_ns(end_ns) <= air.contending_ns(end_ns) <= 4 * air.busy_ns(end_ns)


def profile(**changes):
    fields = {"rate_up": "8 Mbit/s", "rate_down": "8 Mbit/s", "propagation_delay": "5 ms", "resolution": "packets"}
    jitter = {"law": "gamma", "mean": "4 ms", "std": "2 ms"}
    return LinkProfile(**{"name": "test", **fields, "jitter": jitter, "loss": 0.05, "queue": "20 kB", **changes})


@pytest.mark.parametrize("duplex", ["full", "half"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_lone_member_has_its_link_as_if_unshared(kind, duplex):
    messages = [Message((number // 3) * 40 * MS, size) for number, size in enumerate([0, 1, 1460, 30_000, 400] * 8)]
    cells = Cells(name="mast", discipline=kind, duplex=duplex, collision=0.5)

    def shared(env):
        return build_access(env, profile(), entity=3, seed=7, seat=Seat(Cell(env, cells, "mast"))).up

    own = exercise(lambda env: build_access(env, profile(), entity=3, seed=7).up, messages)
    assert exercise(shared, messages) == own
    assert own[1].dropped_packets > 0
    assert own[1].lost_packets > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transport", sorted(TRANSPORTS))
def test_every_transport_gets_every_message_to_its_end(transport, kind):
    env = simpy.Environment()
    cell = Cell(env, Cells(name="mast", discipline=kind, duplex="half", collision=0.02), "mast")
    config = {"kind": "fec", "data": 8, "parity": 2} if transport == "fec" else transport
    accesses = [
        build_access(env, profile(transport=config), entity=place, seed=7, seat=Seat(cell)) for place in range(4)
    ]
    links = [link for access in accesses for link in access]
    done = [link.send(size) for link in links for size in (200, 9_000, 40_000)]
    env.run(until=200 * NS_PER_S)
    for event in done:
        told = event.value
        parts = (
            told.connect_ns, told.window_ns, told.queue_ns, told.serialise_ns, told.propagate_ns, told.jitter_ns,
            told.retransmit_ns,
        )  # fmt: skip
        assert min(parts) >= 0
        assert sum(parts) == told.ended_ns - told.sent_ns
    accounts = [link.snapshot() for link in links]
    assert sum(account.delivered for account in accounts) == sum(event.value.delivered for event in done) > 0
    assert {account.backlog_bytes for account in accounts} == {0}
    (air,) = cell.ends(int(env.now))
    assert sum(account.busy_ns for account in accounts) <= air.busy_ns
    assert air.carried_bytes >= sum(account.wire_bytes for account in accounts)
