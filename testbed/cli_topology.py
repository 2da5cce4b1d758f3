"""`testbed topology`: a network of the catalogue or of a file, its routes, and a picture of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from testbed.core.errors import ScenarioError

if TYPE_CHECKING:
    from testbed.network_models.topology.graph import Described
    from testbed.scenarios.topology import Edge, Topology


def topology(
    name: Annotated[str, typer.Argument(metavar="TOPOLOGY", help="Of the catalogue, or a .yaml or .graphml file.")],
    source: Annotated[str | None, typer.Option("--from", metavar="NODE", help="Routes from here.")] = None,
    target: Annotated[str | None, typer.Option("--to", metavar="NODE", help="Routes to here.")] = None,
    routing: Annotated[str | None, typer.Option("--routing", help="delay, hops or weight. [default: its own]")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", metavar="SVG", help="Draw it into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Print a topology's nodes and edges, and its routes from or to a node with delay and bottleneck."""
    from testbed.scenarios.topology_files import load_topology

    loaded = load_topology(name, routing=routing)
    routes = _routes(loaded, source, target)
    if picture is not None:
        _draw(loaded, picture)
    if as_json:
        told = {**loaded.model_dump(mode="json"), "routes": [_route_data(found) for found in routes]}
        print(json.dumps(told, indent=2))
        return
    _print(loaded, routes, with_edges=source is None and target is None)
    if picture is not None:
        print(f"picture: {picture}")


def _routes(loaded: Topology, source: str | None, target: str | None) -> list[Described]:
    """Between two nodes, or from or to one node and all others that have a way."""
    from testbed.network_models.topology.graph import Routes, describe

    routes = Routes(topology=loaded)
    if source is not None and target is not None:
        return [describe(routes, source, target)]
    if source is not None:
        routes.check("from", source)
        pairs = [(source, other) for other in loaded.node_names if other != source]
    elif target is not None:
        routes.check("to", target)
        pairs = [(other, target) for other in loaded.node_names if other != target]
    else:
        pairs = []
    return [describe(routes, *pair) for pair in pairs if routes.route(*pair) is not None]


def _draw(loaded: Topology, picture: Path) -> None:
    from testbed.report.topology_picture import topology_svg

    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text(topology_svg(loaded) + "\n", encoding="utf-8")
    except OSError as error:
        problem = f"the picture can't be written: {error.strerror or error}"
        raise ScenarioError(problem, path="--picture", value=str(picture)) from None


def _route_data(found: Described) -> dict[str, Any]:
    return {
        "nodes": list(found.nodes),
        "hops": found.hops,
        "delay_ns": found.delay_ns,
        "bottleneck_bps": found.bottleneck_bps,
        "weight": found.weight,
    }


def _print(loaded: Topology, routes: list[Described], *, with_edges: bool) -> None:
    from rich.console import Console

    console = Console()
    if with_edges:
        print(f"{loaded.name}: {loaded.description}" if loaded.description else loaded.name)
        nodes = [(node.name, node.kind) for node in sorted(loaded.nodes, key=lambda node: node.name)]
        console.print(_table(("node", "kind"), nodes, num_text=2))
        edges = sorted(loaded.edges, key=lambda edge: edge.between)
        header = ("from", "to", "ways", "rate", "delay", "weight", "queue")
        console.print(_table(header, [_edge_row(edge) for edge in edges], num_text=3))
        return
    header = ("from", "to", "hops", "delay", "bottleneck", "weight", "by way of")
    console.print(_table(header, [_route_row(found) for found in routes], num_text=2))


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, num_text: int) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(header):
        is_text = index < num_text or column == "by way of"
        table.add_column(column, justify="left" if is_text else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _edge_row(edge: Edge) -> tuple[str, ...]:
    from testbed.core.units import format_seconds, format_si, ns_to_seconds

    limit = getattr(edge.queue, "limit", None)
    return (
        *edge.between,
        "one" if edge.one_way else "both",
        _rate(getattr(edge.rate, "rate", None), edge.rate.kind),
        format_seconds(ns_to_seconds(edge.propagation_ns)),
        str(edge.weight),
        edge.queue.kind if limit is None else format_si(limit, "B"),
    )


def _route_row(found: Described) -> tuple[str, ...]:
    from testbed.core.units import format_seconds, ns_to_seconds

    return (
        found.nodes[0],
        found.nodes[-1],
        str(found.hops),
        format_seconds(ns_to_seconds(found.delay_ns)),
        _rate(found.bottleneck_bps, "varies"),
        str(found.weight),
        ", ".join(found.nodes[1:-1]) or "–",
    )


def _rate(rate_bps: int | None, otherwise: str) -> str:
    from testbed.core.units import format_si

    return otherwise if rate_bps is None else format_si(rate_bps, "bit/s")
