"""``-o fleet.0.count=50``: one value of a scenario changed from the command line."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from testbed.core.errors import ScenarioError, nearest_name
from testbed.scenarios.yaml_file import parse_value

# Places where a name may stand for a mapping, and the key that the name then gets.
_NAMED: Mapping[str, str] = MappingProxyType(
    {"policy": "kind", "discipline": "kind", "device": "use", "link": "use", "server": "use", "topology": "use"}
)


def apply_overrides(data: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `data` with each ``path=value`` set; entries of lists go by their number or their name.

    A catalogue reference on the way, such as ``link: lte``, becomes ``{use: lte}`` so that one field of it can be set.
    A key that is not there yet is made; validation refuses the ones that don't exist.

    Raises ScenarioError, with the override in the place of the file, for one that can't be read or followed.
    """
    changed = copy.deepcopy(data)
    for override in overrides:
        try:
            _apply(changed, override)
        except ScenarioError as error:
            raise error.located(file=f"-o {override}") from None
    return changed


def _apply(data: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise ScenarioError("an override reads path=value", allowed="for example fleet.0.count=50")
    value = parse_value(text)
    node: Any = data
    for depth, key in enumerate(keys[:-1], 1):
        node = _step(node, key, ".".join(keys[:depth]))
    if isinstance(node, list):
        node[_index(node, keys[-1], ".".join(keys))] = value
    elif isinstance(node, dict):
        node[keys[-1]] = value
    else:
        raise _no_place(".".join(keys), node)


def _step(node: Any, key: str, path: str) -> Any:
    """The mapping or list below `key`, made where there is none."""
    if isinstance(node, list):
        place: Any = _index(node, key, path)
    elif isinstance(node, dict):
        place = key
        if node.get(key) is None:
            node[key] = {}
    else:
        raise _no_place(path, node)
    if isinstance(node[place], str) and key in _NAMED:
        node[place] = {_NAMED[key]: node[place]}
    return node[place]


def _no_place(path: str, node: object) -> ScenarioError:
    parent = path.rpartition(".")[0]
    return ScenarioError(f"no such place: {parent} is neither a mapping nor a list", path=path, value=node)


def _index(items: list[Any], key: str, path: str) -> int:
    if key.isdecimal() and int(key) < len(items):
        return int(key)
    names = [str(item.get("name")) for item in items if isinstance(item, dict)]
    if key in names:
        return names.index(key)
    numbers = [str(index) for index in range(len(items))]
    allowed = [*numbers, *(name for name in names if name != "None")] or "nothing, the list is empty"
    raise ScenarioError("no such entry", path=path, value=key, allowed=allowed, nearest=nearest_name(key, names))
