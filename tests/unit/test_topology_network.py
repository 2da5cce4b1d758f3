"""Bare packets over small networks: sums of delays by hand, failures and repairs, and whose draws are whose."""

from __future__ import annotations

import pytest
import simpy

from tests.networks import Far, edge, graph, line, network, send

MS, US = 1_000_000, 1_000


def run(data, *sendings, until=None, seed=1):
    """Each sending is (source, target, sizes, keywords)."""
    env = simpy.Environment()
    net, far = network(env, data, seed=seed), Far(env)
    for source, target, sizes, keywords in sendings:
        send(net, far, (source, target), sizes, **keywords)
    env.run(until)
    return net, far


def loads(net):
    return {(end.source, end.target): end for end in net.edge_ends()}


def test_one_packet_is_stored_and_forwarded_at_every_node() -> None:
    data = graph("abc", [edge("a", "b"), edge("b", "c", rate="80 Mbit/s", delay="700 us")])
    _, far = run(data, ("a", "c", [1500], {}))
    assert far.arrived_ns == {0: 1500 * US + 5 * MS + 150 * US + 700 * US}
    packet = far.packets[0]
    assert (packet.queue_ns, packet.serialise_ns, packet.propagate_ns) == (0, 1650 * US, 5700 * US)


@pytest.mark.parametrize("num_hops", [1, 2, 5])
def test_a_burst_is_a_pipeline(num_hops: int) -> None:
    """n equal packets over h equal hops: (h + n - 1) packet times, and h times the propagation."""
    names = "abcdef"[: num_hops + 1]
    _, far = run(line(*names), (names[0], names[-1], [1000] * 20, {}))
    assert far.arrived_ns == {n: (num_hops + n) * 1000 * US + num_hops * 5 * MS for n in range(20)}


def test_the_slowest_hop_sets_the_pace() -> None:
    data = graph("abcd", [edge("a", "b", rate="80 Mbit/s"), edge("b", "c"), edge("c", "d", rate="80 Mbit/s")])
    _, far = run(data, ("a", "d", [1000] * 10, {}))
    assert [far.arrived_ns[n] - far.arrived_ns[n - 1] for n in range(1, 10)] == [1000 * US] * 9


def test_two_senders_share_an_edge_first_come_first_served() -> None:
    data = graph("abcz", [edge("a", "c"), edge("b", "c"), edge("c", "z")])
    _, far = run(data, ("a", "z", [1000], {}), ("b", "z", [1000], {"first": 9, "at_ns": 400 * US}))
    assert far.arrived_ns[0] == 2 * 1000 * US + 10 * MS
    assert far.arrived_ns[9] == far.arrived_ns[0] + 1000 * US
    assert far.packets[9].queue_ns == 600 * US


def test_directions_do_not_share_a_port() -> None:
    _, far = run(line("a", "b"), ("a", "b", [1000] * 5, {}), ("b", "a", [1000] * 5, {"first": 10}))
    assert far.arrived_ns[4] == far.arrived_ns[14] == 5 * 1000 * US + 5 * MS


RING = ("abcz", [edge("a", "b"), edge("b", "z"), edge("a", "c", delay="9 ms"), edge("c", "z", delay="9 ms")])


def ring(*, reroute_after="0 s", **changes):
    """The short way is by b, the long one by c; `changes` are of the edge from b to z."""
    names, edges = RING
    broken = [{**item, **changes} if item["between"] == ["b", "z"] else item for item in edges]
    return graph(names, broken, reroute_after=reroute_after)


def test_routes_follow_a_failure_and_its_repair() -> None:
    data = ring(down=[{"at": "100 ms", "until": "200 ms"}])
    times_ms = (50, 100, 199, 200)  # down from the first instant on, up again at the last
    net, far = run(data, *(("a", "z", [1000], {"at_ns": t * MS, "first": t}) for t in times_ms))
    taken_ms = {t: (far.arrived_ns[t] - t * MS) // MS for t in times_ms}
    assert taken_ms == {50: 12, 100: 20, 199: 20, 200: 12}
    assert loads(net)["b", "z"].down_ns == loads(net)["z", "b"].down_ns == 100 * MS


def test_what_is_on_an_edge_when_it_fails_is_lost() -> None:
    """At b after 6 ms; on the wire to z from 7 to 12 ms."""
    for at_ms, until_ms, arrives in ((11, 12, False), (12, 13, True), (2, 6, True), (2, 7, True), (2, 8, False)):
        data = ring(reroute_after="1 s", down=[{"at": f"{at_ms} ms", "until": f"{until_ms} ms"}])
        net, far = run(data, ("a", "z", [1000], {}))
        assert (0 in far.arrived_ns) is arrives, (at_ms, until_ms)
        assert loads(net)["b", "z"].failed_packets == (not arrives)


def test_until_routes_follow_packets_run_into_the_failure() -> None:
    data = ring(reroute_after="20 ms", down=[{"at": "100 ms", "until": "200 ms"}])
    times_ms = (90, 119, 120, 219, 220)
    _, far = run(data, *(("a", "z", [1000], {"at_ns": t * MS, "first": t}) for t in times_ms))
    taken_ms = {t: (far.arrived_ns[t] - t * MS) // MS for t in far.arrived_ns}
    assert taken_ms == {120: 20, 219: 20, 220: 12}
    assert far.gone == [90, 119]  # the first came to b at 96 ms and was still on its way to z at 100


def test_without_a_way_nothing_leaves() -> None:
    data = line("a", "b", down=[{"at": "0 s", "until": "1 s"}])
    net, far = run(data, ("a", "b", [1000] * 3, {}))
    assert net.unrouted_packets == 3
    assert far.gone == [0, 1, 2]
    assert loads(net)["a", "b"].offered_packets == 0


def test_random_failures_come_as_often_and_last_as_long_as_they_should() -> None:
    data = line("a", "b", failures={"mean_up": "90 s", "mean_down": "10 s"})
    net, _ = run(data, until=2_000_000 * 10**9)
    share = loads(net)["a", "b"].down_ns / (2_000_000 * 10**9)
    # 20,000 cycles of exponential times: the share's standard deviation is near 0.1 * 0.9 * sqrt(2 / 20,000) = 0.0009.
    assert abs(share - 0.1) < 4 * 0.0009
    assert loads(run(data, until=10**12)[0]) == loads(run(data, until=10**12)[0])
    assert loads(run(data, until=10**12, seed=2)[0]) != loads(run(data, until=10**12)[0])


LOSSY = graph("abcz", [edge("a", "c"), edge("b", "c"), edge("c", "z", loss=0.3, rate="8 Gbit/s")])


def test_another_senders_packets_change_no_draw() -> None:
    alone = run(LOSSY, ("a", "z", [100] * 400, {"entity": 7}))[1].gone
    env = simpy.Environment()
    net, other, far = network(env, LOSSY), Far(env), Far(env)
    send(net, other, "bz", [100] * 400, entity=8)
    send(net, far, "az", [100] * 400, entity=7)
    env.run()
    assert 80 < len(alone) < 160
    assert far.gone == alone
    assert other.gone != alone


def test_each_direction_and_edge_draws_for_itself() -> None:
    data = graph("abz", [edge("a", "b", loss=0.3), edge("b", "z", loss=0.3)])
    gone = [run(data, (one, other, [100] * 300, {}))[1].gone for one, other in ("ab", "ba", "bz", "zb")]
    assert len({tuple(item) for item in gone}) == 4


def test_a_full_queue_drops_what_comes() -> None:
    net, far = run(line("a", "b", "c", queue="3000 B"), ("a", "c", [1000] * 5, {}))
    assert far.gone == [3, 4]
    end = loads(net)["a", "b"]
    assert (end.offered_packets, end.dropped_packets, end.carried_packets) == (5, 2, 3)
    assert (end.offered_bytes, end.carried_bytes, end.peak_backlog_bytes) == (5000, 3000, 3000)
    assert end.busy_ns == 3000 * US


def test_an_edge_may_have_a_queue_that_drops_what_waits() -> None:
    """5,000 packets of a millisecond each at once, CoDel's target 5 ms: some of those behind are dropped, in time."""
    net, far = run(line("a", "b", queue={"kind": "codel", "limit": "10 MB"}), ("a", "b", [1000] * 5000, {}))
    end = loads(net)["a", "b"]
    assert end.dropped_packets == len(far.gone) > 0
    assert end.carried_packets == len(far.arrived_ns) == 5000 - end.dropped_packets
    assert min(far.gone) > 100  # not before an interval of 100 ms


def test_a_stopped_run_says_what_still_waits() -> None:
    net, _ = run(line("a", "b"), ("a", "b", [1000] * 5, {}), until=2500 * US)
    end = loads(net)["a", "b"]
    assert (end.carried_packets, end.waiting_bytes, end.busy_ns) == (2, 3000, 2500 * US)
