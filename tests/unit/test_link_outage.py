"""An outage against a transport's patience, in whole runs: a typed outcome, and an account of what was sent."""

from __future__ import annotations

import pytest

from testbed.core.errors import ScenarioError
from testbed.core.events import Outcome, TransferEnded
from testbed.sim.check import check_scenario
from tests.sim_runs import TINY_SOURCE, S, ends, group, link, of_kind, run_world, scenario, workload

OUTAGE_S = 30


def outage(tmp_path, *, patience, kind="selective-repeat", **changes):
    """Nothing leaves upwards from 1 s to 31 s; requests at 0 s, 2 s and 40 s."""
    trace = tmp_path / "outage.txt"
    trace.write_text(f"0 8\n1 0\n{1 + OUTAGE_S} 8\n100 8\n")
    up = {"kind": "trace", "file": str(trace), "format": "seconds"}
    return scenario(
        fleet=[group(link=link(rate_up=up, transport={"kind": kind, "patience": patience}, **changes))],
        workload=workload(arrivals={"kind": "times", "times": ["0 s", "2 s", "40 s"]}),
    )


@pytest.mark.parametrize("resolution", ["messages", "packets"])
@pytest.mark.parametrize("kind", ["selective-repeat", "stop-and-wait"])
def test_an_outage_longer_than_patience_is_a_link_timeout(kind, resolution, tmp_path):
    world, events = run_world(outage(tmp_path, kind=kind, patience="5 s", resolution=resolution))
    found = ends(events)
    assert [found[number].outcome for number in range(3)] == [
        Outcome.COMPLETED,
        Outcome.LINK_TIMEOUT,
        Outcome.COMPLETED,
    ]
    assert found[1].reason == "up-link timed out"
    (given_up,) = of_kind(events, TransferEnded, delivered=False)
    assert given_up.time_ns == found[1].time_ns
    assert 7 * S < found[1].time_ns < 7 * S + S // 10  # sent soon after 2 s
    sent = of_kind(events, TransferEnded, direction="up")
    up = world.devices[0].link_ends()[0]
    assert (up.messages, up.delivered, up.lost) == (len(sent), len(sent) - 1, 1)
    assert up.lost_payload_bytes == given_up.payload_bytes
    assert up.payload_bytes == sum(message.payload_bytes for message in sent)
    assert up.wire_bytes == sum(message.wire_bytes for message in sent)  # what was queued goes out after the outage
    assert up.packets + up.retransmissions == sum(message.num_packets for message in sent)
    assert (up.lost_packets, up.dropped_packets) == (0, 0)


def test_an_outage_shorter_than_patience_delays(tmp_path):
    _, events = run_world(outage(tmp_path, patience="35 s"))
    assert [end.outcome for end in ends(events).values()] == [Outcome.COMPLETED] * 3
    assert not of_kind(events, TransferEnded, delivered=False)
    assert ends(events)[1].time_ns > (1 + OUTAGE_S) * S


def test_what_was_lost_in_the_air_is_accounted_for():
    lossy = scenario(
        fleet=[group(link=link(loss=0.8, transport={"kind": "selective-repeat", "max_retransmissions": 200}))]
    )
    world, events = run_world(lossy)
    for end in world.devices[0].link_ends():
        sent = of_kind(events, TransferEnded, direction=end.direction)
        assert end.lost_packets == end.retransmissions == sum(message.num_retransmissions for message in sent)
        assert end.ack_bytes == 40 * end.packets
    assert sum(end.lost_packets for end in world.devices[0].link_ends()) > 0


def test_messages_that_need_packets_are_refused_before_the_run():
    asked = scenario(fleet=[group(), group("others", link=link(transport="tcp", resolution="messages"))])
    with pytest.raises(ScenarioError) as refused:
        check_scenario(asked, TINY_SOURCE)
    assert refused.value.path == "fleet[1].link.resolution"
    assert "transport tcp" in refused.value.problem
    assert refused.value.allowed == "packets, auto"
