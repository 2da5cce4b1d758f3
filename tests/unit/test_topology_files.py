"""What may be written about a topology, what it becomes, and how what is wrong is told."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import pytest
import yaml

from testbed.core.errors import ScenarioError
from testbed.network_models.topology.graph import Routes, describe
from testbed.scenarios.catalogue import entries
from testbed.scenarios.load import build_scenario, load_scenario
from testbed.scenarios.problems import validate
from testbed.scenarios.topology import Topology
from testbed.scenarios.topology_files import load_topology, resolve_topology
from testbed.scenarios.topology_shapes import generated
from tests.networks import edge, graph, line
from tests.unit.tiny_scenario import TINY, call, tiny, write

CABLE = {"rate": "1 Gbit/s", "distance": "10 km"}
LIGHT_M_PER_S = 299_792_458 / 1.4682


def shape(kind: str, **keys) -> Topology:
    return validate(Topology, generated({"kind": kind, **keys}))


def plain(topology: Topology) -> nx.Graph:
    found = nx.Graph()
    found.add_nodes_from(node.name for node in topology.nodes)
    found.add_edges_from(item.between for item in topology.edges)
    return found


def of_kind(topology: Topology, kind: str) -> list[str]:
    return [node.name for node in topology.nodes if node.kind == kind]


def test_a_distance_is_what_light_takes_in_fibre() -> None:
    [item] = validate(Topology, graph("ab", [{"between": ["a", "b"], "rate": "1 Gbit/s", "distance": "400 km"}])).edges
    assert item.propagation_ns == round(400_000 / LIGHT_M_PER_S * 1e9)


@pytest.mark.parametrize(("leaves"), [1, 12])
def test_a_star(leaves: int) -> None:
    found = shape("star", leaves=leaves, cable=CABLE)
    assert nx.is_isomorphic(plain(found), nx.star_graph(leaves))
    assert len(of_kind(found, "cell-site")) == leaves


@pytest.mark.parametrize(("fan_out", "depth"), [(1, 3), (2, 3), (12, 2)])
def test_a_tree(fan_out: int, depth: int) -> None:
    found = shape("tree", fan_out=fan_out, cables=[CABLE] * depth)
    assert nx.is_isomorphic(plain(found), nx.balanced_tree(fan_out, depth))
    assert len(of_kind(found, "cell-site")) == fan_out**depth


def test_a_metro_ring_outlives_any_cut_of_its_ring() -> None:
    found = shape("metro-ring", sites=5, cells_per_site=3, ring=CABLE, cell=CABLE, edge_site=CABLE, uplink=CABLE)
    assert len(of_kind(found, "access-router")) == 5
    assert len(of_kind(found, "cell-site")) == 15
    ring = [item for item in found.edges if all(name.startswith("metro") for name in item.between)]
    assert len(ring) == 5
    for item in ring:
        rest = plain(found)
        rest.remove_edge(*item.between)
        assert nx.is_connected(rest)


@pytest.mark.parametrize(("mesh", "num_cables"), [("full", 6), ("ring", 4)])
def test_regions(mesh: str, num_cables: int) -> None:
    names = ["eu", "us", "ap", "sa"]
    found = shape(
        "multi-region", regions=names, mesh=mesh, delays={"us eu": "40 ms"}, distances={"us ap": "9000 km"},
        backbone={"rate": "1 Tbit/s", "delay": "90 ms"}, site=CABLE, data_centre=CABLE, sites_per_region=2,
    )  # fmt: skip
    assert of_kind(found, "region") == names
    assert len(of_kind(found, "edge-site")) == 8
    assert len(of_kind(found, "data-centre")) == 4
    backbone = {frozenset(item.between): item.propagation_ns for item in found.edges if set(item.between) <= set(names)}
    assert len(backbone) == num_cables
    assert backbone[frozenset({"eu", "us"})] == 40_000_000
    assert backbone[frozenset({"ap", "us"})] == round(9_000_000 / LIGHT_M_PER_S * 1e9)
    assert nx.is_connected(plain(found))


@pytest.mark.parametrize("name", sorted(entries("topology")))
def test_shipped_topologies_are_connected_and_say_where_their_numbers_come_from(name: str) -> None:
    found = load_topology(name)
    assert found.name == name
    assert found.description
    assert nx.is_connected(plain(found))
    assert all(len(item.source) > 5 for item in found.edges)


def graphml(tmp_path: Path, body: str, *, kind: str = "undirected") -> Path:
    keys = "".join(
        f'<key id="{name}" for="{what}" attr.name="{name}" attr.type="{kind_of}"/>\n'
        for name, what, kind_of in (
            ("kind", "node", "string"), ("rate", "edge", "string"), ("delay", "edge", "string"),
            ("weight", "edge", "double"), ("colour", "edge", "string"),
        )
    )  # fmt: skip
    text = f'<?xml version="1.0"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n{keys}'
    text += f'<graph edgedefault="{kind}">\n{body}</graph>\n</graphml>\n'
    path = tmp_path / "town.graphml"
    path.write_text(text)
    return path


NODES = '<node id="a"><data key="kind">cell-site</data></node>\n<node id="b"/>\n'
EDGE = '<edge source="a" target="b"><data key="rate">{}</data><data key="delay">2 ms</data>{}</edge>\n'


def test_graphml(tmp_path: Path) -> None:
    more = '<data key="weight">3</data><data key="colour">red</data>'
    found = load_topology(str(graphml(tmp_path, NODES + EDGE.format("10 Mbit/s", more))))
    assert [(node.name, node.kind) for node in found.nodes] == [("a", "cell-site"), ("b", "router")]
    [item] = found.edges
    assert (item.propagation_ns, item.weight, item.one_way) == (2_000_000, 3, False)
    directed = load_topology(str(graphml(tmp_path, NODES + EDGE.format("10 Mbit/s", ""), kind="directed")))
    assert [item.ways for item in directed.edges] == [[("a", "b")]]


def test_graphml_with_what_every_edge_has(tmp_path: Path) -> None:
    graphml(tmp_path, NODES + '<edge source="a" target="b"/>\n')
    found = validate(Topology, resolve_topology({"file": "town.graphml", "every_edge": CABLE}, tmp_path))
    assert found.edges[0].distance == 10_000


def test_a_malformed_graphml_file_is_told_with_its_line(tmp_path: Path) -> None:
    path = graphml(tmp_path, "<node id='a'>\n")
    done = call("topology", str(path))
    assert done.code == 2
    assert done.err == f"error: {path}: not valid GraphML: mismatched tag: line 10, column 2\n"


def test_two_edges_between_two_nodes_in_graphml_are_told(tmp_path: Path) -> None:
    done = call("topology", str(graphml(tmp_path, NODES + 2 * EDGE.format("10 Mbit/s", ""))))
    assert done.code == 2
    assert "an earlier edge joins these nodes" in done.err


def test_a_file_that_leads_to_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("file: loop.yaml\n")
    done = call("topology", str(tmp_path / "loop.yaml"))
    assert done.code == 2
    assert "a topology's own file can't lead to another" in done.err


def test_a_wrong_value_in_graphml_is_told_with_its_line(tmp_path: Path) -> None:
    path = graphml(tmp_path, NODES + EDGE.format("10 Mbps!", ""))
    done = call("topology", str(path))
    assert done.code == 2
    assert done.err.startswith(f"error: {path}: edges[0].rate: ")
    assert "in the edge at line 11" in done.err
    assert "(got '10 Mbps!')" in done.err


EARLIER = "an earlier edge joins these nodes"


def refusal(data) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        validate(Topology, data)
    return caught.value


@pytest.mark.parametrize(
    ("data", "path", "problem", "value"),
    [
        (graph("aa", []), "nodes[1].name", "an earlier node has this name", "a"),
        (graph("ab", [edge("a", "a")]), "edges[0].between", "an edge from a node to itself leads nowhere", "a"),
        (graph("ab", [edge("a", "b"), edge("b", "a")]), "edges[1].between", EARLIER, "b, a"),
        (line("a", "b", rate="0 bit/s"), "edges[0].rate", "bit rate too small", "0 bit/s"),
        (line("a", "b", weight=-1), "edges[0].weight", "too small", -1),
        (line("a", "b", distance="3 km"), "edges[0].distance", "an edge has a delay or a distance, not both", None),
        (line("a", "b", delay="-1 s"), "edges[0].delay", "time too small", "-1 s"),
        (graph("ab", [{"between": ["a", "b"], "rate": "1 bit/s"}]), "edges[0].delay", "required key is missing", None),
        (graph("ab", [edge("a", "b", between=["a"])]), "edges[0].between", "too few entries", None),
        (
            line("a", "b", down=[{"at": "2 s", "until": "1 s"}]), "edges[0].down[0].until",
            "a failure must end after it begins", "1 s",
        ),
    ],
)  # fmt: skip
def test_what_is_no_graph_is_refused_where_it_stands(data, path, problem, value) -> None:
    error = refusal(data)
    assert (error.path, error.problem, error.value) == (path, problem, value)


def test_an_edge_to_an_unknown_node_names_the_nearest() -> None:
    error = refusal(graph(["cell-1", "cell-2", "core"], [edge("cell-1", "cpre")]))
    assert (error.path, error.problem) == ("edges[0].between[1]", "the topology has no such node")
    assert (error.value, error.nearest, error.allowed) == ("cpre", "core", ["cell-1", "cell-2", "core"])


@pytest.fixture
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def placed(topology, *, at="a", server_at="b", **more):
    data = tiny(("topology", topology), ("fleet.0.at", at), ("servers.0.at", server_at))
    return {**data, **more}


@pytest.mark.usefixtures("_empty_folder")
@pytest.mark.parametrize(
    ("data", "told"),
    [
        (placed("metro-rong"), "topology: unknown topology (got 'metro-rong'); allowed: "),
        (placed({"use": "metro-rong"}), "topology.use: unknown topology (got 'metro-rong'); allowed: "),
        (placed({"file": "town.yaml"}), "town.yaml: no such file"),
        (placed({"file": "town.txt"}), "topology.file: a file is expected (got "),
        (placed({**line("a", "b"), "every_edge": 5}), "topology.every_edge: a mapping is expected (got 5)"),
        (placed({**graph("ab", None), "cuts": [{}]}), "topology.edges: a list is expected, and there is nothing"),
        (placed({**line("a", "b"), "cuts": [{}]}), "topology.cuts[0].at: required key is missing"),
        (placed({"routing": "hops"}), "topology: a topology has its nodes and edges from one place; allowed: use"),
        (placed({"generate": {"kind": "ring"}}), "topology.generate.kind: unknown shape (got 'ring'); allowed: metro"),
        (
            placed({"generate": {"kind": "star", "leaves": 0, "cable": CABLE}}),
            "topology.generate.leaves: too small (got 0); allowed: at least 1",
        ),
        (
            placed({"generate": {"kind": "star", "leaves": 2, "cable": {"rate": "1 Gbit/s"}}}),
            "topology.generate.cable.delay: required key is missing; allowed: a delay, or a distance",
        ),
        (placed(line("a", "b"), at="c"), "fleet[0].at: the topology has no such node (got 'c'); allowed: a, b"),
        (placed(line("a", "b"), at="c*"), "fleet[0].at: no node fits (got 'c*')"),
        (placed(line("a", "b"), server_at=["a", "cc"]), "servers[0].at: the topology has no such node (got 'cc')"),
        (placed(None), "fleet[0].at: a place needs a topology, and there is none (got 'a')"),
        (placed(line("a", "b"), at=None), "fleet[0].at: required key is missing beside a topology; allowed: a node, "),
        (placed({**line("a", "b"), "routing": "nearest"}), "topology.routing: not one of the choices (got 'nearest')"),
        (
            placed({**line("a", "b"), "cuts": [{"between": ["a", "z"], "at": "1 s", "until": "2 s"}]}),
            "topology.cuts[0].between: no edge joins these nodes (got 'a, z')",
        ),
        (placed(graph("ab", [])), "fleet[0].at: there is no way from this node to any server and back (got 'a')"),
    ],
)  # fmt: skip
def test_a_scenario_with_a_wrong_place_or_network_is_refused(data, told: str) -> None:
    write(Path("case.yaml"), data)
    done = call("validate", "case.yaml")
    assert done.code == 2, done
    assert done.err.count("\n") == 1
    assert told in done.err


def test_a_topology_of_the_catalogue_with_changes() -> None:
    asked = {"use": "metro-ring", "routing": "hops", "generate": {"sites": 4, "ring": {"rate": "1 Gbit/s"}}}
    found = validate(Topology, resolve_topology(asked, Path()))
    assert found.routing == "hops"
    assert len(of_kind(found, "access-router")) == 4
    ring = [item for item in found.edges if all(name.startswith("metro") for name in item.between)]
    assert {(item.rate.rate, item.distance) for item in ring} == {(10**9, 12_000)}


def test_cuts_are_put_to_their_edges() -> None:
    cut = {"between": ["metro-1", "metro-0"], "at": "1 s", "until": "2 s"}
    found = validate(Topology, resolve_topology({"use": "metro-ring", "cuts": [cut]}, Path()))
    broken = {tuple(item.between): item.down for item in found.edges if item.down}
    assert list(broken) == [("metro-0", "metro-1")]
    assert (broken["metro-0", "metro-1"][0].at, broken["metro-0", "metro-1"][0].until) == (10**9, 2 * 10**9)


def test_a_resolved_scenario_reads_as_itself(tmp_path: Path) -> None:
    found = load_scenario("metro-cut")
    text = yaml.safe_dump(found.as_data())
    assert build_scenario(yaml.safe_load(text), base=tmp_path) == found


def test_a_file_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "town.yaml").write_text(yaml.safe_dump(line("a", "b")))
    found = build_scenario({**TINY, **placed({"file": "town.yaml"})}, base=tmp_path)
    assert found.topology is not None
    assert found.topology.node_names == ["a", "b"]


def test_a_route_is_told_with_delay_bottleneck_and_weight() -> None:
    data = graph("abz", [edge("a", "b", weight=3), edge("b", "z", rate="80 Mbit/s", delay="1 ms")])
    found = describe(Routes(topology=validate(Topology, data)), "a", "z")
    assert (found.nodes, found.hops) == (("a", "b", "z"), 2)
    assert (found.delay_ns, found.bottleneck_bps, found.weight) == (6_000_000, 8_000_000, 4)


@pytest.mark.usefixtures("_empty_folder")
def test_the_command_prints_draws_and_refuses() -> None:
    write(Path("net.yaml"), {**line("a", "b", "z"), "nodes": [{"name": name} for name in "abyz"]})
    shown = call("topology", "net.yaml", "--picture", "net.svg")
    assert shown.code == 0
    assert "8.00 Mbit/s" in shown.out
    first = Path("net.svg").read_text()
    nx_free = [first.count(f">{name}</text>") for name in "abyz"]
    assert nx_free == [1, 1, 1, 1]
    call("topology", "net.yaml", "--picture", "net.svg")
    assert Path("net.svg").read_text() == first
    assert "10.0 ms" in call("topology", "net.yaml", "--from", "a", "--to", "z").out
    assert call("topology", "net.yaml", "--from", "a", "--to", "y").err == (
        "error: to: there is no route from a to y (got 'y'); allowed: b, z\n"
    )
    assert "did you mean 'a'" not in call("topology", "net.yaml", "--from", "q").err
    assert call("topology", "net.yaml", "--from", "q").code == 2
    assert call("topology", "net.yaml", "--routing", "best").code == 2
