"""``-o fleet.0.count=50``: one value of a scenario changed from the command line."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from testbed.core.errors import ScenarioError
from testbed.scenarios.yaml_file import parse_value


def apply_overrides(data: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `data` with each ``path=value`` set; entries of lists go by their number or their name.

    A catalogue reference on the way, such as ``link: lte``, becomes ``{use: lte}`` so that one field of it can be set.
    A key that is not there yet is made; validation refuses the ones that don't exist.
    """
    changed = copy.deepcopy(data)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise ScenarioError("an override reads path=value", value=override, allowed="for example fleet.0.count=50")
        _set(changed, path.strip(), parse_value(text))
    return changed


def _set(data: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    node: Any = data
    for depth, key in enumerate(parents):
        node = _step(node, key, ".".join(parents[: depth + 1]))
    if isinstance(node, list):
        node[_index(node, last, path)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ScenarioError("no such place in the scenario", path=path, value=last)


def _step(node: Any, key: str, path: str) -> Any:
    if isinstance(node, list):
        node_key: Any = _index(node, key, path)
    elif isinstance(node, dict):
        node.setdefault(key, {})
        node_key = key
    else:
        raise ScenarioError("no such place in the scenario", path=path, value=key)
    if isinstance(node[node_key], str):
        node[node_key] = {"kind" if key == "policy" else "use": node[node_key]}
    return node[node_key]


def _index(items: list[Any], key: str, path: str) -> int:
    if key.isdigit() and int(key) < len(items):
        return int(key)
    names = [str(item.get("name")) for item in items if isinstance(item, dict)]
    if key in names:
        return names.index(key)
    raise ScenarioError("no such entry of a list", path=path, value=key, allowed=f"0 to {len(items) - 1} or {names}")
