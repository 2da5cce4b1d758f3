"""Random small networks: routes against every simple path there is, and packets that all end somewhere."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import networkx as nx
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.network_models.topology.graph import Routes
from testbed.scenarios.problems import validate
from testbed.scenarios.topology import Topology
from tests.networks import Far, graph, network, send

MS = 1_000_000


@st.composite
def topologies(draw, *, lossy=False):
    """Up to 7 nodes; few different costs, zero among them, so that there are ties; some edges one way."""
    names = [f"n{number}" for number in range(draw(st.integers(2, 7)))]
    pairs = draw(st.lists(st.sampled_from(list(combinations(names, 2))), unique=True, min_size=1, max_size=12))
    edges = []
    for pair in pairs:
        item = {
            "between": list(draw(st.permutations(pair))),
            "rate": draw(st.sampled_from(["8 Mbit/s", "16 Mbit/s", "80 Mbit/s"])),
            "delay": f"{draw(st.integers(0, 3))} ms",
            "weight": draw(st.integers(0, 2)),
            "one_way": draw(st.booleans()),
        }
        if lossy:
            item["loss"] = draw(st.sampled_from([0.0, 0.1, 0.5]))
            item["queue"] = draw(st.sampled_from(["2 kB", "1 MB"]))
            at_ms = draw(st.integers(0, 30))
            item["down"] = [{"at": f"{at_ms} ms", "until": f"{at_ms + draw(st.integers(1, 20))} ms"}]
        edges.append(item)
    return graph(names, edges, routing=draw(st.sampled_from(["delay", "hops", "weight"])))


def cost_of(topology: Topology, arcs: nx.DiGraph, path: tuple[str, ...]) -> int:
    edges = [arcs[one][other]["edge"] for one, other in pairwise(path)]
    if topology.routing == "delay":
        return sum(edge.propagation_ns for edge in edges)
    return len(edges) if topology.routing == "hops" else sum(edge.weight for edge in edges)


@settings(deadline=None, max_examples=60)
@given(data=topologies(), chosen=st.randoms(use_true_random=False))
def test_a_route_is_the_best_of_all_simple_paths(data, chosen: random.Random) -> None:
    """Least cost, then fewest hops, then first by name; with some arcs down as well; None where there is no path."""
    topology = validate(Topology, data)
    routes = Routes(topology=topology)
    arcs = nx.DiGraph()
    arcs.add_nodes_from(topology.node_names)
    arcs.add_edges_from((*way, {"edge": edge}) for edge in topology.edges for way in edge.ways)
    down = frozenset(way for way in arcs.edges if chosen.random() < 0.2)
    arcs.remove_edges_from(down)
    for source in arcs:
        for target in arcs:
            if source == target:
                assert routes.route(source, target, down) == (source,)
                continue
            paths = [tuple(path) for path in nx.all_simple_paths(arcs, source, target)]
            best = min(paths, key=lambda path: (cost_of(topology, arcs, path), len(path), path), default=None)
            assert routes.route(source, target, down) == best


@settings(deadline=None, max_examples=60)
@given(data=topologies(lossy=True), chosen=st.randoms(use_true_random=False))
def test_every_packet_ends_somewhere_and_every_edge_accounts_for_it(data, chosen: random.Random) -> None:
    env = simpy.Environment()
    net, far = network(env, data), Far(env)
    names = [node["name"] for node in data["nodes"]]
    sent = 0
    for burst in range(8):
        way, count = chosen.sample(names, 2), chosen.randint(1, 12)
        send(net, far, way, [chosen.choice((40, 700, 1500))] * count, at_ns=burst * 5 * MS, entity=burst, first=sent)
        sent += count
    env.run()
    ends = net.edge_ends()
    for end in ends:
        gone = end.dropped_packets + end.lost_packets + end.failed_packets
        assert end.offered_packets == end.carried_packets + gone
        assert end.waiting_bytes == 0
        assert (end.offered_bytes == end.carried_bytes) == (gone == 0)
    assert sorted([*far.arrived_ns, *far.gone]) == list(range(sent))
    gone = sum(end.dropped_packets + end.lost_packets + end.failed_packets for end in ends) + net.unrouted_packets
    assert gone == len(far.gone)
    for packet in far.packets.values():
        parts = packet.queue_ns + packet.serialise_ns + packet.propagate_ns
        assert far.arrived_ns[packet.number] - packet.sent_ns == parts


@settings(deadline=None, max_examples=20)
@given(data=topologies(lossy=True), chosen=st.randoms(use_true_random=False))
def test_the_order_in_the_file_changes_nothing(data, chosen: random.Random) -> None:
    turned = {**data, "nodes": chosen.sample(data["nodes"], len(data["nodes"])),
              "edges": chosen.sample(data["edges"], len(data["edges"]))}  # fmt: skip
    seen = []
    for order in (data, turned):
        env = simpy.Environment()
        net, far = network(env, order), Far(env)
        send(net, far, ("n0", "n1"), [700] * 20)
        send(net, far, ("n1", "n0"), [700] * 20, first=20, entity=1)
        env.run()
        seen.append((far.arrived_ns, far.gone, net.edge_ends()))
    assert seen[0] == seen[1]
