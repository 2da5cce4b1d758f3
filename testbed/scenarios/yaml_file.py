"""YAML text to plain data and back, with one clear error for each way a file can be unreadable.

Plain words are read as in YAML 1.2's core schema, as editors do: `1e-3` is a number, `012` is twelve, and `on`, `no`,
`1:30` and `2024-01-01` are texts. YAML 1.1, PyYAML's own, makes a text, ten, booleans, ninety and a date of them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from testbed.core.errors import ScenarioError

_MERGE = "tag:yaml.org,2002:merge"
# In this order: the first that fits a plain word gives its kind, and a text is what is left.
_PLAIN_WORDS = (
    (_MERGE, r"<<"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|"),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+"),
    ("tag:yaml.org,2002:float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"),
    ("tag:yaml.org,2002:float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"),
)
_ANY_FIRST_LETTER = None
_RESOLVERS = {_ANY_FIRST_LETTER: [(tag, re.compile(rf"(?:{words})\Z")) for tag, words in _PLAIN_WORDS]}


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice in one mapping: the first would be lost silently."""

    yaml_implicit_resolvers = _RESOLVERS


class _Dumper(yaml.SafeDumper):
    """Quotes texts that either version of YAML would read as something else."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == _MERGE:
            continue
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (list, dict)):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain value", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 16 if text.startswith("0x") else 10)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
for _tag, _words in _RESOLVERS[_ANY_FIRST_LETTER]:
    _Dumper.add_implicit_resolver(_tag, _words, None)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping at the top of a YAML file.

    Raises ScenarioError for a missing, unreadable or malformed file (with its line) and for any other top level.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ScenarioError("no such file", file=path) from None
    except UnicodeDecodeError as error:
        raise ScenarioError(
            f"not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}", file=path
        ) from None
    except OSError as error:
        raise ScenarioError(f"the file can't be read: {error.strerror or error}", file=path) from None
    try:
        data = _parsed(text)
    except ValueError as error:
        raise ScenarioError(f"not valid YAML: {error}", file=path) from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else "a list" if isinstance(data, list) else "a single value"
        raise ScenarioError(f"a mapping (key: value) is expected at the top level, and there is {found}", file=path)
    return data


def parse_value(text: str) -> Any:
    """One YAML value, as in ``-o key=value``."""
    try:
        return _parsed(text)
    except ValueError as error:
        raise ScenarioError(f"not a YAML value: {error}", value=text) from None


def yaml_text(data: Any) -> str:
    """Plain data as YAML that `read_yaml` and YAML 1.1 readers read back as the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _parsed(text: str) -> Any:
    """Raise ValueError, in one line, for text that is no YAML."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(_where(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).split("\n", 1)[0]
    if problem.startswith("but "):
        problem = f"{getattr(error, 'context', '')}, {problem}"
    return problem if mark is None else f"{problem} at line {mark.line + 1}, column {mark.column + 1}"
