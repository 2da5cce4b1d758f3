"""YAML text to plain data, with one clear error for each way a file can be unreadable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from testbed.core.errors import ScenarioError


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice in one mapping: the first would be lost silently."""


def _mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (list, dict)):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain value", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping at the top of a YAML file.

    Raises ScenarioError for a missing, unreadable or malformed file (with its line) and for any other top level.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ScenarioError("no such file", file=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"can't read the file: {error}", file=path) from None
    try:
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ScenarioError(f"not valid YAML: {_where(error)}", file=path) from None
    if not isinstance(data, dict):
        raise ScenarioError("a mapping is expected at the top level", file=path, value=data)
    return data


def parse_value(text: str) -> Any:
    """One YAML value, as in ``-o key=value``."""
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ScenarioError(f"not a YAML value: {_where(error)}", value=text) from None


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return problem if mark is None else f"{problem} at line {mark.line + 1}, column {mark.column + 1}"
