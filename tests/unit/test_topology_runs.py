"""Fleets behind a network: where requests go, what failures do to them, and what other devices can't change."""

from __future__ import annotations

import pytest

from testbed.core.errors import ScenarioError
from testbed.core.events import Outcome, RequestAdmitted, TransferEnded
from testbed.network_models.transfer import Direction
from testbed.sim.check import check_scenario
from testbed.sim.world import World
from tests.networks import edge, graph, line
from tests.sim_runs import (
    MS,
    TINY_SOURCE,
    ends,
    group,
    link,
    of_kind,
    run_events,
    run_world,
    scenario,
    server,
    workload,
)

MTU, HEADER = 1500, 40


def cloud(at="z", **changes):
    return {"name": "cloud", "server": server(), "at": at, **changes}


def built(topology, **changes):
    """A device at `a` and a server at `z`, unless it is said otherwise."""
    return scenario(**{"topology": topology, "fleet": [group(at="a")], "servers": [cloud()], **changes})


def transfers(events, **fields):
    return of_kind(events, TransferEnded, **fields)


def test_a_message_takes_its_link_and_then_every_edge() -> None:
    """The recursion of a tandem of queues, packet by packet, over the link and two edges."""
    moved = transfers(run_events(built(line("a", "b", "z"))), direction="up")[0]
    last_bytes = moved.payload_bytes + HEADER * moved.num_packets - MTU * (moved.num_packets - 1)
    sizes = [MTU] * (moved.num_packets - 1) + [last_bytes]
    here_ns = [moved.sent_ns] * len(sizes)
    for propagation_ms in (10, 5, 5):
        free_ns = 0
        for place, size in enumerate(sizes):
            free_ns = max(free_ns, here_ns[place]) + size * 1000
            here_ns[place] = free_ns + propagation_ms * MS
    assert moved.time_ns == max(here_ns)


def test_a_server_at_the_devices_own_node_is_as_near_as_without_a_topology() -> None:
    at_home = built(line("a", "z"), fleet=[group(at="z")])
    assert run_events(at_home) == run_events(scenario())


def test_groups_are_dealt_over_the_nodes_that_fit() -> None:
    found = built(graph(["c-10", "c-2", "z"], [edge("c-10", "z"), edge("c-2", "z")]), fleet=[group(at="c-*", count=3)])
    assert [found.place_of(found.fleet[0], place) for place in range(3)] == ["c-10", "c-2", "c-10"]


def test_the_way_back_has_an_account_too() -> None:
    world, events = run_world(built(line("a", "b", "z")))
    loads = {(end.source, end.target): end for end in world.edge_ends()}
    for way, direction in ((("a", "b"), "up"), (("b", "z"), "up"), (("z", "b"), "down"), (("b", "a"), "down")):
        sent_bytes = sum(moved.wire_bytes for moved in transfers(events, direction=direction))
        assert loads[way].carried_bytes == loads[way].offered_bytes == sent_bytes > 0


def two_sites():
    """Servers at y and at z, each behind an edge of its own that loses packets."""
    return graph("ayz", [edge("a", "y", loss=0.2), edge("a", "z", loss=0.2)])


def test_connections_to_several_servers_share_the_devices_link() -> None:
    asks = workload(arrivals={"kind": "times", "times": ["0 s", "1 ms", "2 ms"]})
    fleet = [group(at="a", count=2, link=link(loss=0.2, resolution="packets"))]
    servers = [cloud("y", name="near"), cloud("z")]
    world, events = run_world(built(two_sites(), fleet=fleet, servers=servers, workload=asks))
    assert {event.server for event in of_kind(events, RequestAdmitted)} == {0, 1}
    assert all(end.outcome is Outcome.COMPLETED for end in ends(events).values())
    for device in world.devices:
        account = {end.direction: end for end in device.link_ends()}
        for direction in ("up", "down"):
            moved = transfers(events, link=device.device, direction=direction)
            assert account[direction].messages == len(moved)
            assert account[direction].wire_bytes == sum(transfer.wire_bytes for transfer in moved)
            assert account[direction].retransmissions == sum(transfer.num_retransmissions for transfer in moved) > 0
    up = world.devices[0].links
    assert up.snapshot(Direction.UP).messages == sum(up.to(server).up.snapshot().messages for server in (0, 1))


def test_connections_of_one_device_draw_apart() -> None:
    """Thirty messages of a packet each, first to one server, then to the other, over a link that loses half of them."""
    fleet = [group(at="a", link=link(loss=0.5, resolution="packets"))]
    sound = graph("ayz", [edge("a", "y"), edge("a", "z")])
    found = built(sound, fleet=fleet, servers=[cloud("y", name="near"), cloud("z")])
    world = World(found, TINY_SOURCE, executor=None, emit=lambda _: None)
    repeats = []
    for number in (0, 1):
        sent = [world.devices[0].links.to(number).up.send(100) for _ in range(30)]
        world.clock.run()
        repeats.append([done.value.num_retransmissions for done in sent])
    assert repeats[0] != repeats[1]


def test_a_failed_edge_ends_a_request_once_patience_ends() -> None:
    """No way for good: ten repeats of 200 ms, then the typed outcome; what was sent is accounted for."""
    cut = line("a", "z", down=[{"at": "100 ms", "until": "1 h"}])
    world, events = run_world(built(cut))
    [end] = ends(events).values()
    assert end.outcome is Outcome.LINK_TIMEOUT
    assert end.reason.endswith("link timed out")
    lost = [moved for moved in transfers(events) if not moved.delivered]
    assert len(lost) == 1
    assert lost[0].num_retransmissions > 0
    assert (
        world.devices[0].links.snapshot(Direction.UP).lost + world.devices[0].links.snapshot(Direction.DOWN).lost == 1
    )


def test_a_request_outlives_a_failure_that_routes_go_around() -> None:
    names, edges = "abcz", [edge("a", "b"), edge("b", "z"), edge("a", "c", delay="9 ms"), edge("c", "z", delay="9 ms")]
    edges[1]["down"] = [{"at": "50 ms", "until": "1 h"}]
    world, events = run_world(built(graph(names, edges)))
    assert ends(events)[0].outcome is Outcome.COMPLETED
    loads = {(end.source, end.target): end for end in world.edge_ends()}
    assert loads["a", "c"].carried_packets > 0
    assert loads["a", "b"].carried_packets > 0


def lossy_fleet(*groups):
    """Groups apart in time, so that only draws could tell one of the other."""
    asks = {
        name: workload(arrivals={"kind": "times", "times": [at]}) for name, at in (("one", "3 ms"), ("two", "60 s"))
    }
    return [group(name, at="a", link=link(loss=0.1, resolution="packets"), workload=asks[name]) for name in groups]


def test_adding_a_device_changes_no_other_devices_path() -> None:
    lossy = line("a", "b", "z", loss=0.2)
    alone = built(lossy, fleet=lossy_fleet("one"))
    beside = built(lossy, fleet=lossy_fleet("two", "one"))

    def fates(found, device):
        return [(m.sent_ns, m.time_ns, m.num_retransmissions) for m in transfers(run_events(found), link=device)]

    assert sum(repeats for *_, repeats in fates(alone, 0)) > 0
    assert fates(beside, 1) == fates(alone, 0)


def test_the_order_of_a_files_nodes_and_edges_means_nothing() -> None:
    """Equal ways by b and by c: the tie is decided by name."""
    names, edges = "abcz", [edge("a", "b", loss=0.1), edge("b", "z"), edge("a", "c", loss=0.1), edge("c", "z")]
    turned = [{**item, "between": item["between"][::-1]} for item in edges[::-1]]
    fleet = [group(at="a", count=3)]
    events = run_events(built(graph(names, edges), fleet=fleet))
    assert run_events(built(graph(names[::-1], turned), fleet=fleet)) == events


def test_a_cell_in_front_and_a_transport_with_windows_go_together_with_edges() -> None:
    asks = workload(prompts={"kind": "random", "length": {"law": "fixed", "value": 200}})
    fleet = [group(at="a", count=3, cell="mast", link=link(transport="tcp"))]
    found = built(line("a", "b", "z", loss=0.2), fleet=fleet, cells=[{"name": "mast"}], workload=asks)
    world, events = run_world(found)
    assert [end.outcome for end in ends(events).values()] == [Outcome.COMPLETED] * 3
    assert run_events(found) == events
    loads = {(end.source, end.target): end for end in world.edge_ends()}
    assert loads["a", "b"].lost_packets > 0
    assert loads["a", "b"].offered_packets == loads["a", "b"].carried_packets + loads["a", "b"].lost_packets


def refused(found) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        check_scenario(found, TINY_SOURCE)
    return caught.value


def test_a_device_without_a_way_to_any_server_is_refused() -> None:
    for edges in ([], [edge("a", "b")], [edge("a", "z", one_way=True)], [edge("z", "a", one_way=True)]):
        error = refused(built(graph("abz", edges)))
        assert (error.path, error.value) == ("fleet[0].at", "a")
        assert "no way from this node to any server" in error.problem


def test_a_server_that_no_device_can_reach_is_refused() -> None:
    error = refused(built(graph("ayz", [edge("a", "z")]), servers=[cloud(), cloud("y", name="far")]))
    assert (error.path, error.value) == ("servers[1].at", "y")


def test_messages_are_refused_where_edges_are_shared() -> None:
    by_messages = link(resolution="messages")
    error = refused(built(line("a", "z"), fleet=[group(at="a", link=by_messages)]))
    assert error.path == "fleet[0].link.resolution"
    check_scenario(built(line("a", "z"), fleet=[group(at="z", link=by_messages)]), TINY_SOURCE)


def test_requests_go_to_servers_that_can_be_reached() -> None:
    apart = graph("abyz", [edge("a", "y"), edge("b", "z")])
    fleet = [group("east", at="a", count=2), group("west", at="b", count=2)]
    found = built(apart, fleet=fleet, servers=[cloud("y", name="near"), cloud("z")])
    check_scenario(found, TINY_SOURCE)
    _, events = run_world(found)
    assert {event.server for event in of_kind(events, RequestAdmitted) if event.request < 2} == {0}
    assert {event.server for event in of_kind(events, RequestAdmitted) if event.request >= 2} == {1}
