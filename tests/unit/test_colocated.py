"""Devices without a network: a run is the server's time alone."""

from __future__ import annotations

from testbed.core.events import RequestEnded, SpanEnded, TransferEnded
from tests.sim_runs import MS, group, link, of_kind, run_events, scenario, spans_of, token_times

LOCAL = link(transport="colocated")


def test_messages_take_no_time_and_put_nothing_on_a_wire():
    events = run_events(scenario(fleet=[group(link=LOCAL)]))
    transfers = of_kind(events, TransferEnded)
    assert len(transfers) == 8
    assert all(item.time_ns == item.sent_ns and item.wire_bytes == item.num_packets == 0 for item in transfers)
    assert not [hop for _, hop, _, _ in spans_of(events) if hop.startswith(("up_", "down_"))]


def test_a_cloud_only_request_is_nothing_but_its_server():
    events = run_events(scenario(policy="cloud-only", fleet=[group(link=LOCAL)]))
    assert {span.hop.value for span in of_kind(events, SpanEnded)} == {"back"}
    (end,) = of_kind(events, RequestEnded)
    times = token_times(events)
    assert end.time_ns == times[-1]
    spans = spans_of(events)
    assert [end_ns for _, _, _, end_ns in spans] == times
    assert spans[0][2] == 3 * MS
