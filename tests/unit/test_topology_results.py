"""What a run behind a topology leaves: a row a direction of an edge, a block of the summary, a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from testbed.report.topology_picture import topology_svg
from testbed.results.measure import edges
from testbed.scenarios.problems import validate
from testbed.scenarios.topology import Topology
from testbed.scenarios.topology_files import load_topology
from tests.networks import edge, graph
from tests.unit.tiny_scenario import call, tiny, write

NETWORK = graph("abyz", [edge("a", "b"), edge("b", "z", down=[{"at": "0 s", "until": "1 ms"}]), edge("b", "y")])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run")
    scenario = tiny(("topology", NETWORK), ("fleet.0.at", "a"), ("servers.0.at", "z"))
    write(place / "case.yaml", scenario)
    done = call("run", str(place / "case.yaml"), "--out", str(place / "run"), "--json")
    assert done.code == 0, done
    return place / "run"


def test_the_table_the_summary_and_the_transfers_agree(folder: Path) -> None:
    rows = pq.read_table(str(folder / "edges.parquet")).to_pylist()
    assert [(row["source"], row["target"]) for row in rows] == sorted(
        (one, other) for pair in ("ab", "bz", "by") for one, other in (pair, pair[::-1])
    )
    summary = json.loads((folder / "summary.json").read_text())
    transfers = pq.read_table(str(folder / "transfers.parquet")).to_pylist()
    sent_bytes = {way: sum(row["wire_bytes"] for row in transfers if row["direction"] == way) for way in ("up", "down")}
    carried_bytes = {(row["source"], row["target"]): row["carried_bytes"] for row in rows}
    assert carried_bytes["a", "b"] == carried_bytes["b", "z"] == sent_bytes["up"] > 0
    assert carried_bytes["z", "b"] == carried_bytes["b", "a"] == sent_bytes["down"] > 0
    assert carried_bytes["b", "y"] == 0
    block = summary["edges"]
    assert block["count"] == 6
    assert block["carried_bytes"] == sum(carried_bytes.values())
    for row, told in zip(rows, block["each"], strict=True):
        # 8 Mbit/s: a microsecond a byte.
        assert row["busy_ns"] == row["offered_bytes"] * 1000
        assert told["utilisation"] == pytest.approx(row["busy_ns"] / 1e9 / summary["duration_s"])
        broken = {row["source"], row["target"]} == {"b", "z"}
        assert told["down_share"] == pytest.approx(1e-3 / summary["duration_s"] if broken else 0)


def test_the_report_draws_every_node_and_every_direction(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "<h2>Topology</h2>" in page
    picture = page[page.index('<svg xmlns="http://www.w3.org/2000/svg"') :]
    picture = picture[: picture.index("</svg>")]
    for name in "abyz":
        assert f">{name}</text>" in picture
    assert picture.count(" busy</title>") == 6
    assert "2 devices" in picture
    assert "1 server" in picture


def test_without_a_topology_there_is_no_block() -> None:
    assert edges(None, 1) is None


@pytest.mark.parametrize("name", ["metro-ring", "nsfnet"])
def test_a_picture_is_well_formed_and_within_its_frame(name: str) -> None:
    found = load_topology(name)
    loads = {way: 0.5 for item in found.edges for way in item.ways}
    root = ElementTree.fromstring(topology_svg(found, loads=loads))
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    lines = [item for item in root.iter() if item.tag.endswith("line") and len(item)]
    assert len(lines) == 2 * len(found.edges)
    for item in lines:
        assert all(0 < float(item.attrib[key]) < width for key in ("x1", "x2"))
        assert all(0 < float(item.attrib[key]) < height for key in ("y1", "y2"))


@pytest.mark.parametrize(
    ("names", "edges", "ways"),
    [
        ("a", [], []),
        ("abc", [], []),
        ("abcd", [edge("a", "b"), edge("c", "d", one_way=True)], ["a to b", "b to a", "c to d"]),
    ],
    ids=["one node", "no edges", "two parts"],
)
def test_a_picture_of_one_node_and_of_parts_apart(names: str, edges: list[Any], ways: list[str]) -> None:
    """Each node is drawn once, named, at a place of its own; each direction of an edge is a line."""
    root = ElementTree.fromstring(topology_svg(validate(Topology, graph(names, edges))))
    texts, lines, circles = (
        [item for item in root.iter() if item.tag.endswith(kind)] for kind in ("text", "line", "circle")
    )
    assert [item.text for item in texts if item.get("class") == "name"] == list(names)
    assert [item[0].text for item in lines] == ways
    places = {item[0].text: (item.get("cx"), item.get("cy")) for item in circles}
    assert list(places) == [*(f"{name} (router)" for name in names), "legend (router)"]
    assert len(set(places.values())) == len(circles) == len(names) + 1
