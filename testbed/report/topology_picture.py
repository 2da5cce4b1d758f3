"""A topology as one SVG that serves light and dark pages: nodes by kind, edges by the load of each direction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from testbed.core.units import format_si
from testbed.report.graph_layout import Place, place_nodes
from testbed.report.markup import Markup, element, join
from testbed.scenarios.topology import NODE_KINDS, Edge, Node, Topology, Way

_WIDTH, _HEIGHT = 1000, 560
_MARGIN_X, _MARGIN_TOP, _MARGIN_BOTTOM = 90, 30, 78
_MOST_NAMES = 60  # nodes; with more, cell sites have no name
_MOST_FIGURES = 45  # edges
_BESIDE = 3.2  # from an edge's middle to each of its directions
_LEVELS = (0.0, 0.05, 0.2, 0.5, 0.8)  # utilisation from which on an edge is drawn in a level's colour

_LIGHT = {
    "ink": "#1b1f26", "soft": "#5a6270", "paper": "#ffffff", "none": "#cfd4dc",
    "levels": ("#9db8d3", "#4f93cc", "#e0a100", "#dd6a1c", "#b3123a"),
    "kinds": ("#0068a8", "#00835f", "#5b6472", "#a8478f", "#8a6a00", "#1b1f26"),
}  # fmt: skip
_DARK = {
    "ink": "#e8eaee", "soft": "#a3abb8", "paper": "#1b1f26", "none": "#424a57",
    "levels": ("#4c6b8a", "#64b8f0", "#e9c84a", "#ff9150", "#ff5f7d"),
    "kinds": ("#64b8f0", "#3ed3a4", "#aeb7c4", "#ec9fd4", "#e9c84a", "#e8eaee"),
}  # fmt: skip
_RADIUS: Mapping[str, float] = MappingProxyType(
    {"cell-site": 5, "access-router": 6, "router": 6, "edge-site": 7, "region": 8, "data-centre": 9}
)
_SQUARE = frozenset({"edge-site", "region", "data-centre"})  # where servers stand


def topology_svg(
    topology: Topology, *, loads: Mapping[Way, float] | None = None, notes: Mapping[str, str] | None = None
) -> Markup:
    """`loads` is the utilisation of each direction; without, edges say their rates. `notes` stand below names."""
    inner_width, inner_height = _WIDTH - 2 * _MARGIN_X, _HEIGHT - _MARGIN_TOP - _MARGIN_BOTTOM
    spots = {
        name: (x + _MARGIN_X, y + _MARGIN_TOP)
        for name, (x, y) in place_nodes(topology, inner_width, inner_height).items()
    }
    lines = [line for edge in topology.edges for line in _lines(edge, spots, loads)]
    few = len(topology.edges) <= _MOST_FIGURES
    figures = [_figure(edge, spots, loads) for edge in topology.edges] if few else []
    nodes = [_node(node, spots[node.name]) for node in topology.nodes]
    shown = [node for node in topology.nodes if len(spots) <= _MOST_NAMES or node.kind != "cell-site"]
    names = [_name(node, spots[node.name], (notes or {}).get(node.name, "")) for node in shown]
    alternative = f"Topology {topology.name}: {len(topology.nodes)} nodes, {len(topology.edges)} edges"
    return element(
        "svg", element("style", Markup(_css())), *lines, *figures, *nodes, *names, _legend(topology, loads is not None),
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", class_="topology",
        aria_label=alternative,
    )  # fmt: skip


def _css() -> str:
    return (
        ".topology text{font:11px system-ui,-apple-system,'Segoe UI',Arial,sans-serif;paint-order:stroke;"
        "stroke-width:3px;stroke-linejoin:round}.topology .figure{font-size:10px}.topology line{stroke-linecap:round}"
        + _colours(_LIGHT)
        + "@media (prefers-color-scheme:dark){"
        + _colours(_DARK)
        + "}"
    )


def _colours(palette: Mapping[str, object]) -> str:
    levels, kinds = palette["levels"], palette["kinds"]
    assert isinstance(levels, tuple)
    assert isinstance(kinds, tuple)
    rules = [
        f".topology text{{fill:{palette['ink']};stroke:{palette['paper']}}}",
        f".topology .figure,.topology .note{{fill:{palette['soft']}}}",
        f".topology .unused{{stroke:{palette['none']}}}",
        *(f".topology .level{number}{{stroke:{colour}}}" for number, colour in enumerate(levels)),
        *(
            f".topology .{kind}{{fill:{colour};stroke:{palette['paper']};stroke-width:1.5px}}"
            for kind, colour in zip(NODE_KINDS, kinds, strict=True)
        ),
    ]
    return "".join(rules)


def _lines(edge: Edge, spots: Mapping[str, Place], loads: Mapping[Way, float] | None) -> list[Markup]:
    """Each direction on its own side of the edge, as on a road where one drives on the right."""
    return [_line(way, spots, None if loads is None else loads.get(way, 0.0)) for way in edge.ways]


def _line(way: Way, spots: Mapping[str, Place], known: float | None) -> Markup:
    (x1, y1), (x2, y2) = spots[way[0]], spots[way[1]]
    length = math.hypot(x2 - x1, y2 - y1) or 1.0
    dx, dy = -(y2 - y1) / length * _BESIDE, (x2 - x1) / length * _BESIDE
    load, told = known or 0.0, f"{way[0]} to {way[1]}" + ("" if known is None else f": {100 * known:.1f} % busy")
    style = f"level{sum(load >= least for least in _LEVELS) - 1}" if load > 0 else "unused"
    return element(
        "line", element("title", told), class_=style,
        x1=f"{x1 + dx:.1f}", y1=f"{y1 + dy:.1f}", x2=f"{x2 + dx:.1f}", y2=f"{y2 + dy:.1f}",
        stroke_width=f"{1.6 + 4.4 * math.sqrt(min(load, 1.0)):.1f}",
    )  # fmt: skip


def _figure(edge: Edge, spots: Mapping[str, Place], loads: Mapping[Way, float] | None) -> Markup:
    """The busier direction's utilisation, or the rate."""
    if loads is None:
        rate_bps = getattr(edge.rate, "rate", None)
        told = edge.rate.kind if rate_bps is None else format_si(rate_bps, "bit/s")
    else:
        load = max(loads.get(way, 0.0) for way in edge.ways)
        told = f"{100 * load:.0f} %" if load >= 0.01 else f"{100 * load:.1f} %" if load >= 0.0005 else ""  # noqa: PLR2004
    (x1, y1), (x2, y2) = (spots[name] for name in edge.between)
    return _text((x1 + x2) / 2, (y1 + y2) / 2 + 3.5, told, "figure")


def _node(node: Node, place: Place) -> Markup:
    (x, y), size = place, _RADIUS[node.kind]
    told = element("title", f"{node.name} ({node.kind})")
    if node.kind in _SQUARE:
        return element("rect", told, class_=node.kind, x=x - size, y=y - size, width=2 * size, height=2 * size, rx=2)
    return element("circle", told, class_=node.kind, cx=x, cy=y, r=size)


def _name(node: Node, place: Place, note: str) -> Markup:
    (x, y), below = place, _RADIUS[node.kind] + 11
    return join([_text(x, y + below, node.name, "name"), *([_text(x, y + below + 12, note, "note")] if note else [])])


def _text(x: float, y: float, told: str, style: str, anchor: str = "middle") -> Markup:
    return element("text", told, class_=style, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _legend(topology: Topology, with_loads: bool) -> Markup:
    """The kinds that there are and, of loads, what the colours stand for."""
    present = {node.kind for node in topology.nodes}
    parts, x, y = [], 14.0, _HEIGHT - 12.0
    for kind in NODE_KINDS:
        if kind in present:
            parts += [_node(Node(name="legend", kind=kind), (x, y - 4)), _text(x + 13, y, kind, "note", "start")]
            x += 30 + 6.2 * len(kind)
    if with_loads:
        uppers = [*(f"{100 * least:.0f}" for least in _LEVELS[1:]), "100"]
        x = max(x + 20, _WIDTH - 440.0)
        for number, (least, upper) in enumerate(zip(_LEVELS, uppers, strict=True)):
            width = 1.6 + 4.4 * math.sqrt((least + float(upper) / 100) / 2)
            parts.append(element("line", class_=f"level{number}", x1=x, y1=y - 4, x2=x + 18, y2=y - 4,
                                 stroke_width=f"{width:.1f}"))  # fmt: skip
            parts.append(_text(x + 23, y, f"{100 * least:.0f}–{upper} %", "note", "start"))
            x += 86
    return join(parts)
