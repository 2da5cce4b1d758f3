"""How a scenario names its topology: by catalogue entry, by YAML or GraphML file, by shape, or node by node."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from testbed.core.errors import ScenarioError
from testbed.scenarios.catalogue import entries, find
from testbed.scenarios.file_paths import absolute, with_absolute_files
from testbed.scenarios.problems import validate
from testbed.scenarios.topology import Cut, Topology
from testbed.scenarios.topology_shapes import generated
from testbed.scenarios.yaml_file import read_yaml

Data = dict[str, Any]
_WAYS = ("use", "file", "generate", "nodes")
_NODE_KEYS = ("kind", "source")
_EDGE_KEYS = ("rate", "delay", "distance", "loss", "queue", "weight", "source")


def load_topology(name: str, *, routing: str | None = None) -> Topology:
    """One entry of the catalogue, or a file, with its own routing or another.

    Raises ScenarioError, located in the file, for anything that is wrong with it.
    """
    path = Path(name)
    found = _read(path if path.suffix in {".yaml", ".yml", ".graphml"} else find("topology", name))
    return validate(Topology, found if routing is None else {**found, "routing": routing})


def resolve_topology(reference: Any, base: Path) -> Any:
    """The topology's nodes and edges as plain data; files are looked up below `base`.

    Raises ScenarioError, located within the reference, or in the file that is wrong.
    """
    if isinstance(reference, str):
        return _read(find("topology", reference))
    if not isinstance(reference, Mapping):
        return reference  # validation says what is wrong
    return _expanded(dict(reference), base)


def _expanded(asked: Data, base: Path) -> Any:
    """One of the ways to say what nodes and edges there are, with what else was said taking precedence."""
    ways = [way for way in _WAYS if way in asked]
    if "use" in ways:
        return _used(asked, base)
    if len(ways) != 1:
        told = ", ".join(ways) if ways else None
        raise ScenarioError("a topology has its nodes and edges from one place", value=told, allowed=list(_WAYS))
    every_edge, cuts = asked.pop("every_edge", {}), asked.pop("cuts", [])
    if not isinstance(every_edge, Mapping):
        raise ScenarioError("a mapping is expected", path="every_edge", value=every_edge, allowed="keys of an edge")
    if "file" in ways:
        found = _read(_beside(asked.pop("file"), base), every_edge)
    elif "generate" in ways:
        try:
            found = generated(asked.pop("generate"))
        except ScenarioError as error:
            raise error.below("generate") from None
    else:
        found = {}
    whole = {**found, **asked}
    if every_edge and isinstance(whole.get("edges"), list):
        whole["edges"] = [_with(every_edge, edge) if isinstance(edge, dict) else edge for edge in whole["edges"]]
    return _with_cuts(whole, cuts)


def _used(asked: Data, base: Path) -> Any:
    """A catalogue entry with changes; those to its shape go into its shape."""
    name = asked.pop("use")
    if not isinstance(name, str):
        raise ScenarioError("a topology's name is expected", path="use", value=name, allowed=list(entries("topology")))
    try:
        path = find("topology", name)
    except ScenarioError as error:
        raise error.located(path="use") from None
    entry = _entry(path)
    if isinstance(asked.get("generate"), Mapping) and isinstance(entry.get("generate"), Mapping):
        asked["generate"] = _merged(entry["generate"], asked["generate"])
        return _expanded({**entry, **asked}, base)
    cuts = asked.pop("cuts", [])
    return _with_cuts({**_checked(path, entry), **asked}, cuts)


def _merged(kept: Mapping[str, Any], changes: Mapping[str, Any]) -> Data:
    """Changes go into mappings, key by key."""
    both = {key: value for key, value in changes.items() if isinstance(value, Mapping)
            and isinstance(kept.get(key), Mapping)}  # fmt: skip
    return {**kept, **changes, **{key: _merged(kept[key], value) for key, value in both.items()}}


def _read(path: Path, every_edge: Mapping[str, Any] | None = None) -> Data:
    """What a file says, checked as a topology of its own."""
    if path.suffix == ".graphml":
        return _graphml(path, every_edge or {})
    return _checked(path, {**({"every_edge": every_edge} if every_edge else {}), **_entry(path)})


def _entry(path: Path) -> Data:
    data: Data = with_absolute_files({"name": _plain(path.stem), **read_yaml(path)}, path.parent)
    for way in ("use", "file"):
        if way in data:
            raise ScenarioError("a topology's own file can't lead to another", file=path, path=way, value=data[way],
                                allowed="generate, or nodes and edges")  # fmt: skip
    return data


def _plain(name: str) -> str:
    """A file's name as a topology's."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)


def _checked(path: Path, entry: Data) -> Data:
    try:
        whole = _expanded(entry, path.parent)
        validate(Topology, whole)
    except ScenarioError as error:
        raise error.located(file=path) from None
    assert isinstance(whole, dict), "it was valid"
    return whole


def _beside(name: Any, base: Path) -> Path:
    if not isinstance(name, str) or Path(name).suffix not in {".yaml", ".yml", ".graphml"}:
        raise ScenarioError("a file is expected", path="file", value=name, allowed="a .yaml or .graphml file")
    return Path(absolute(name, base))


def _with(defaults: Mapping[str, Any], edge: Data) -> Data:
    """An edge with what it does not say itself; a delay of its own leaves no default distance, and the other way."""
    kept = {key: value for key, value in defaults.items() if not ({key, *edge} >= {"delay", "distance"})}
    return {**kept, **edge}


def _with_cuts(whole: Data, cuts: Any) -> Data:
    """Each cut, a time during which an edge is down, is put to its edge."""
    if not cuts:
        return whole
    validate(Topology, whole)
    edges = [dict(edge) for edge in whole["edges"]]
    for index, cut in enumerate(cuts if isinstance(cuts, list) else [cuts]):
        found = _cut(cut, f"cuts[{index}]")
        joined = [edge for edge in edges if sorted(edge["between"]) == sorted(found.between)]
        if not joined:
            raise ScenarioError("no edge joins these nodes", path=f"cuts[{index}].between",
                                value=", ".join(found.between), allowed="the two ends of an edge")  # fmt: skip
        for edge in joined:
            edge["down"] = [*edge.get("down", []), found.model_dump(mode="json", include={"at", "until"})]
    return {**whole, "edges": edges}


def _cut(data: Any, path: str) -> Cut:
    """What is wrong with it is said of `path`."""
    try:
        return validate(Cut, data)
    except ScenarioError as error:
        raise error.below(path) from None


def _graphml(path: Path, every_edge: Mapping[str, Any]) -> Data:
    """A GraphML graph: node ids are names, attributes are keys; others, such as colours and places, are left out."""
    import networkx as nx  # noqa: PLC0415 - only here, and slow to load

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ScenarioError("no such file", file=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"the file can't be read: {error}", file=path) from None
    try:
        graph = nx.parse_graphml(text)
    except (ParseError, nx.NetworkXError, KeyError, ValueError) as error:
        raise ScenarioError(f"not valid GraphML: {error}", file=path) from None
    found = [(str(one), str(other), data) for one, other, data in graph.edges(data=True)]
    ends = sorted(found, key=lambda item: item[:2])
    whole = {
        "name": _plain(path.stem),
        "nodes": [{"name": str(name), **_known(data, _NODE_KEYS)} for name, data in sorted(graph.nodes(data=True))],
        "edges": [
            {"between": [one, other], "one_way": graph.is_directed(), **_with(every_edge, _known(data, _EDGE_KEYS))}
            for one, other, data in ends
        ],
    }
    try:
        validate(Topology, whole)
    except ScenarioError as error:
        raise _at_line(error, text, [(one, other) for one, other, _ in ends]).located(file=path) from None
    return whole


def _known(data: Mapping[str, Any], keys: tuple[str, ...]) -> Data:
    """The attributes that mean something here; whole numbers as such, whatever type GraphML gave them."""
    found = {key: data[key] for key in keys if key in data}
    return {key: int(value) if isinstance(value, float) and value.is_integer() else value
            for key, value in found.items()}  # fmt: skip


def _at_line(error: ScenarioError, text: str, ends: list[tuple[str, str]]) -> ScenarioError:
    """The error with the line of the edge it is about, where it is about one."""
    found = re.match(r"edges\[(\d+)\]", error.path or "")
    if found is None:
        return error
    one, other = (re.escape(name) for name in ends[int(found[1])])
    places = (rf'<edge\b[^>]*source="{one}"[^>]*target="{other}"', rf'<edge\b[^>]*target="{other}"[^>]*source="{one}"')
    place = next((match for pattern in places if (match := re.search(pattern, text))), None)
    if place is None:
        return error
    line = text.count("\n", 0, place.start()) + 1
    return ScenarioError(f"{error.problem}, in the edge at line {line}", path=error.path, value=error.value,
                         allowed=error.allowed, nearest=error.nearest)  # fmt: skip
