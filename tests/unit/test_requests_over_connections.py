"""Whole requests over TCP and QUIC: where their time goes, and how they end."""

from __future__ import annotations

import itertools

import pytest

from testbed.core.events import Outcome, TransferEnded
from tests.sim_runs import MS, S, ends, group, link, of_kind, run_world, scenario, spans_of, workload

# Five requests; a device answers one at a time and then waits for the next, longer than any time-out.
FIVE = workload(arrivals={"kind": "times", "times": [f"{3 + 10_000 * number} ms" for number in range(5)]})


def over(transport, **changes):
    return run_world(scenario(fleet=[group(link=link(transport=transport, **changes))], workload=FIVE))[1]


@pytest.mark.parametrize(
    ("transport", "connected"),
    [("tcp", [0]), ({"kind": "quic", "zero_rtt": False}, [0]), ({"kind": "quic", "zero_rtt": True}, [])],
)
def test_only_the_first_message_pays_for_the_connection(transport, connected):
    events = over(transport)
    assert all(end.outcome is Outcome.COMPLETED for end in ends(events).values())
    waited = [number for number in range(5) for _, hop, *_ in spans_of(events, number) if hop == "up_connect"]
    assert waited == connected
    assert not any(hop == "down_connect" for number in range(5) for _, hop, *_ in spans_of(events, number))


def test_spans_follow_each_other_without_gap_at_any_loss():
    for kind in ("tcp", "quic"):
        events = over(kind, loss=0.2, jitter={"law": "gamma", "mean": "4 ms", "std": "2 ms"})
        for number, end in ends(events).items():
            spans = spans_of(events, number)
            assert spans[-1][3] == end.time_ns
            assert all(early[3] == late[2] for early, late in itertools.pairwise(spans))


@pytest.mark.parametrize("kind", ["tcp", "quic"])
def test_a_message_that_outlasts_the_patience_ends_its_request_with_link_timeout(kind):
    events = over({"kind": kind, "patience": "100 ms"}, loss=0.99)
    (first, *_) = ends(events).values()
    assert (first.outcome, first.reason) == (Outcome.LINK_TIMEOUT, "up-link timed out")
    moved = of_kind(events, TransferEnded, request=0)
    assert [transfer.delivered for transfer in moved] == [False]
    start_ns = min(start for _, hop, start, _ in spans_of(events, 0) if hop.startswith("up_"))
    assert first.time_ns - start_ns == 100 * MS < S
