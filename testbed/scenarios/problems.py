"""Pydantic's complaints as one ScenarioError: YAML path, value, what is allowed, the nearest name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from testbed.core.errors import ScenarioError, nearest_name

BlockT = TypeVar("BlockT", bound=BaseModel)


def validate(block: type[BlockT], data: Any) -> BlockT:
    """The block that `data` describes.

    Raises ScenarioError for the first thing that is wrong, located by its YAML path within `data`.
    """
    try:
        return block.model_validate(data)
    except ValidationError as error:
        raise _as_scenario_error(error, block, data) from None


def _as_scenario_error(error: ValidationError, block: type[BaseModel], data: Any) -> ScenarioError:
    first = error.errors(include_url=False)[0]
    location = first["loc"]
    path = _yaml_path(location, data)
    carried = first.get("ctx", {}).get("error")
    if isinstance(carried, ScenarioError):
        inner = ".".join(part for part in (path, carried.path) if part)
        return ScenarioError(
            carried.problem, path=inner, value=carried.value, allowed=carried.allowed, nearest=carried.nearest
        )
    if first["type"] == "missing":
        return ScenarioError("required key is missing", path=path)
    if first["type"] == "extra_forbidden":
        known = _known_keys(block, location)
        return ScenarioError(
            "unknown key", path=path, allowed=known or None, nearest=nearest_name(str(location[-1]), known)
        )
    return _with_choices(first, path)


def _with_choices(first: Mapping[str, Any], path: str) -> ScenarioError:
    context, value = first.get("ctx", {}), first.get("input")
    allowed = context.get("expected") or context.get("expected_tags")
    known = [part.strip(" '") for part in str(allowed).replace(" or ", ", ").split(",")] if allowed else []
    if "tag" in context:  # an unknown kind of a tagged union: the tag is the wrong value, not the whole block
        value, path = context["tag"], f"{path}.{context['discriminator'].strip(chr(39))}"
    shown = value if isinstance(value, (str, int, float, bool)) else None
    nearest = nearest_name(shown, known) if isinstance(shown, str) else None
    problem = "not one of the choices" if known else first["msg"][0].lower() + first["msg"][1:]
    return ScenarioError(problem, path=path, value=shown, allowed=known or None, nearest=nearest)


def _known_keys(block: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Keys allowed where an unknown one stands, read from the block's JSON Schema."""
    schema = block.model_json_schema()
    node: Any = schema
    for part in location[:-1]:
        node = _descend(node, part, schema)
    node = _dereferenced(node, schema)
    return sorted(node.get("properties", {})) if isinstance(node, dict) else []


def _dereferenced(node: Any, schema: Mapping[str, Any]) -> Any:
    while isinstance(node, dict) and "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node


def _descend(node: Any, part: int | str, schema: Mapping[str, Any]) -> Any:
    node = _dereferenced(node, schema)
    if not isinstance(node, dict):
        return {}
    choices = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
    if len(choices) == 1:
        node = _dereferenced(choices[0], schema)
    if isinstance(part, int):
        return node.get("items", {})
    if part in node.get("properties", {}):
        return node["properties"][part]
    mapping = node.get("discriminator", {}).get("mapping", {})
    return {"$ref": mapping[part]} if part in mapping else {}


def _yaml_path(location: tuple[int | str, ...], data: Any) -> str:
    """``fleet[0].link.loss``; the tags that pydantic adds for tagged unions are left out."""
    text, node = "", data
    for position, part in enumerate(location):
        if isinstance(part, int):
            text += f"[{part}]"
            node = node[part] if isinstance(node, list) and part < len(node) else None
        elif isinstance(node, Mapping) and part in node:
            text, node = f"{text}.{part}", node[part]
        elif position == len(location) - 1:
            text = f"{text}.{part}"
    return text.lstrip(".")
