"""Which keys, or which tags of a tagged union, a place in a block allows: read from the block's JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

Location = tuple[int | str, ...]


def allowed_keys(block: type[BaseModel], location: Location) -> list[str]:
    """The keys of the mapping at a pydantic location; the tag key of a tagged union where no tag is given yet."""
    node = _node(block, location)
    return sorted(node.get("properties", {})) or [key for key in [_tag_key(node)] if key]


def tag_names(block: type[BaseModel], location: Location) -> list[str]:
    """What may stand for the tag of the tagged union at a pydantic location."""
    return sorted(_node(block, location).get("discriminator", {}).get("mapping", {}))


def _tag_key(node: Mapping[str, Any]) -> str:
    return str(node.get("discriminator", {}).get("propertyName", ""))


def _node(block: type[BaseModel], location: Location) -> dict[str, Any]:
    schema = block.model_json_schema()
    node = _resolved(schema, schema)
    for part in location:
        node = _resolved(_child(node, part), schema)
    return node


def _child(node: Mapping[str, Any], part: int | str) -> Any:
    if isinstance(part, int):
        return next((option["items"] for option in (node, *node.get("oneOf", ())) if "items" in option), {})
    if part in node.get("properties", {}):
        return node["properties"][part]
    mapping = node.get("discriminator", {}).get("mapping", {})
    if part in mapping:
        return {"$ref": mapping[part]}
    return node if "oneOf" in node and not mapping else {}  # the tag of a choice that is told by what is written


def _resolved(node: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The node that references and ``X | None`` stand for."""
    while isinstance(node, dict):
        choices = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
        elif len(choices) == 1:
            node = choices[0]
        else:
            return node
    return {}
