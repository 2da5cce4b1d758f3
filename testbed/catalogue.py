"""What a scenario can name, listed and shown."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import yaml

from testbed.core import distributions
from testbed.core.errors import ScenarioError, nearest_name
from testbed.core.registry import SEAMS, Registry
from testbed.models.source import known_names, resolve
from testbed.scenarios.catalogue import entries
from testbed.scenarios.jitter import JitterLaw
from testbed.scenarios.topology_shapes import SHAPES
from testbed.scenarios.yaml_file import read_yaml

_FILES = ("device", "server", "link", "topology", "scenario")
_REGISTRIES: dict[str, Registry] = {registry.kind: registry for registry in SEAMS}
# What is chosen by name and is no seam: a jitter's law, the shape of a generated topology.
_CHOICES: dict[str, dict[str, Any]] = {
    "jitter": {law: getattr(distributions, law) for law in get_args(JitterLaw)},
    "shape": dict(SHAPES),
}


def listing(kind: str) -> list[dict[str, str]]:
    """Name, one line of description and origin of every entry of a kind."""
    if kind in _REGISTRIES:
        registry = _REGISTRIES[kind]
        return [
            {"name": name, "description": _first_line(registry.load(name)), "origin": "registry"} for name in registry
        ]
    if kind in _CHOICES:
        return [
            {"name": name, "description": _first_line(choice), "origin": "built in"}
            for name, choice in _CHOICES[kind].items()
        ]
    if kind == "model":
        return [{"name": name, "description": _model_line(name), "origin": "shipped"} for name in known_names()]
    return [
        {"name": name, "description": str(read_yaml(path).get("description", "")), "origin": str(path)}
        for name, path in entries(kind).items()
    ]


def described(name: str) -> str:
    """One entry: a catalogue file as it is written, with its sources, or a model's shape as YAML."""
    for kind in _FILES:
        path = entries(kind).get(name)
        if path is not None:
            return f"# {kind}, {path}\n{path.read_text(encoding='utf-8').rstrip()}"
    if name in known_names():
        shape = resolve(name).shape
        fields = {field: getattr(shape, field) for field in type(shape).__slots__}
        return yaml.safe_dump(fields, sort_keys=False).rstrip()
    everything = [entry for kind in _FILES for entry in entries(kind)] + known_names()
    raise ScenarioError("nothing has this name", value=name, nearest=nearest_name(name, everything))


def _model_line(name: str) -> str:
    source = resolve(name)
    weights = "with weights" if source.has_weights else "shape only, for modelled groups"
    return f"{source.shape.num_layers} layers, hidden size {source.shape.hidden_size}, {weights}"


def _first_line(implementation: Any) -> str:
    return (inspect.getdoc(implementation) or "").split("\n", 1)[0]
