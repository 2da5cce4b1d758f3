"""JSON Schema of a scenario file, for editors."""

from __future__ import annotations

import json
from typing import Any

from testbed.core.registry import (
    ARRIVALS,
    DISCIPLINES,
    LOSSES,
    OUTAGES,
    POLICIES,
    QUEUES,
    RATES,
    ROUTERS,
    SCHEDULERS,
    TRANSPORTS,
    Registry,
)
from testbed.scenarios.catalogue import entries
from testbed.scenarios.mix import DRAWS
from testbed.scenarios.schema import Scenario
from testbed.scenarios.topology_shapes import SHAPES

_PROFILES = {"device": "DeviceProfile", "server": "ServerProfile", "link": "LinkProfile"}
# A piece's base class -> its registry, and the kind and key that a bare value stands for
_PIECES: dict[str, tuple[Registry, tuple[str, str] | None]] = {
    "RateConfig": (RATES, ("constant", "rate")),
    "LossConfig": (LOSSES, ("bernoulli", "p")),
    "QueueConfig": (QUEUES, ("drop-tail", "limit")),
    "OutageConfig": (OUTAGES, None),
    "TransportConfig": (TRANSPORTS, None),
    "DisciplineConfig": (DISCIPLINES, None),
    "ArrivalConfig": (ARRIVALS, None),
    "SchedulerConfig": (SCHEDULERS, None),
    "RouterConfig": (ROUTERS, None),
}
_SOURCED = {"type": "object", "required": ["value"], "additionalProperties": False}


def scenario_json_schema() -> str:
    """JSON Schema of a scenario file: names of the catalogue, as it is now, may stand where a profile is described."""
    schema = Scenario.model_json_schema()
    definitions = schema["$defs"]
    for kind, name in _PROFILES.items():
        profile = definitions[name]
        profile["properties"] = {key: _perhaps_sourced(key, item) for key, item in profile["properties"].items()}
        definitions[f"{name}ByName"] = _by_name(kind, profile)
        definitions[f"{name}Described"] = profile
        definitions[name] = {
            "anyOf": [{"enum": list(entries(kind))}, _reference(f"{name}ByName"), _reference(f"{name}Described")]
        }
    for name in [name for name in definitions if name.startswith(("Between_", "Steps_"))]:
        definitions[name] = _perhaps_bare(definitions, definitions[name])
    definitions["Group"] = _perhaps_mixed(definitions["Group"])
    definitions["TopologyDescribed"] = definitions["Topology"]
    definitions["Topology"] = {"anyOf": [{"enum": list(entries("topology"))}, *_network_ways(definitions["Topology"])]}
    definitions["PolicyConfig"] = {"anyOf": [{"enum": list(POLICIES)}, *_kinds(POLICIES)]}
    for name, (registry, short) in _PIECES.items():
        bare = {"enum": list(registry)} if short is None else _bare(registry, *short)
        definitions[name] = {"anyOf": [bare, *_kinds(registry)]}
    return json.dumps(schema, indent=2, sort_keys=True)


def _perhaps_sourced(key: str, item: dict[str, Any]) -> dict[str, Any]:
    """A number may carry where it comes from."""
    if key in {"name", "description", "sources"}:
        return item
    text = {"type": "string"}
    return {"anyOf": [item, {**_SOURCED, "properties": {"value": item, "source": text}}]}


def _perhaps_bare(definitions: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    """A range may be one value, a schedule one that never changes."""
    if "low" in item["properties"]:
        return {"anyOf": [item, item["properties"]["low"]]}
    step = definitions[item["properties"]["steps"]["items"]["$ref"].rsplit("/", 1)[1]]
    return {"anyOf": [item, step["properties"]["value"]]}


def _perhaps_mixed(group: dict[str, Any]) -> dict[str, Any]:
    """One device for all of the group, or a mix of them; churn of one kind needs no list."""
    churn = group["properties"]["churn"]
    keys = {**group["properties"], "churn": {"anyOf": [churn, churn["items"]]}}
    entry = {key: item for key, item in keys.items() if key != "count"} | {"share": {"type": ["number", "string"]}}
    required = ["device", "share"]
    described = {"type": "object", "required": required, "additionalProperties": False, "properties": entry}
    mix = {"mix": {"type": "array", "minItems": 1, "items": described}, "mix_draw": {"enum": list(DRAWS)}}
    return {
        **group,
        "properties": {**keys, **mix},
        "required": [key for key in group["required"] if key != "device"],
        "anyOf": [{"required": ["device"]}, {"required": ["mix"]}],
    }


def _by_name(kind: str, profile: dict[str, Any]) -> dict[str, Any]:
    """A profile of the catalogue with changes to some of its numbers."""
    properties = {"use": {"enum": list(entries(kind))}, **profile["properties"]}
    return {"type": "object", "required": ["use"], "additionalProperties": False, "properties": properties}


def _network_ways(topology: dict[str, Any]) -> list[dict[str, Any]]:
    """A topology by name, file or shape, or node by node; the rest of its keys beside any of them."""
    described = {key: item for key, item in topology["properties"].items() if key not in {"nodes", "edges"}}
    cut = {
        "between": {"type": "array", "items": {"type": "string"}},
        "at": {"type": "string"},
        "until": {"type": "string"},
    }
    described["cuts"] = {"type": "array", "items": {"type": "object", "properties": cut}}
    edge = {"every_edge": {"type": "object", "description": "what edges have that don't say it themselves"}}
    shapes = {"generate": {"anyOf": [shape.model_json_schema() for shape in SHAPES.values()]}}
    ways: dict[str, dict[str, Any]] = {
        "use": {"use": {"enum": list(entries("topology"))}, "generate": {"type": "object"}},
        "file": {"file": {"type": "string"}, **edge},
        "generate": {**shapes, **edge},
        "nodes": {**topology["properties"], **edge},
    }
    return [
        {"type": "object", "required": [way], "additionalProperties": False, "properties": {**described, **properties}}
        for way, properties in ways.items()
    ]


def _kinds(registry: Registry) -> list[dict[str, Any]]:
    """Every row's own configuration; `kind` chooses it and so is never left out."""
    found = []
    for name in registry:
        described: dict[str, Any] = registry.load(name).Config.model_json_schema()
        found.append({**described, "title": name, "required": sorted({"kind", *described.get("required", [])})})
    return found


def _bare(registry: Registry, kind: str, key: str) -> Any:
    """A value that stands alone for the commonest kind."""
    return registry.load(kind).Config.model_json_schema()["properties"][key]


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}
