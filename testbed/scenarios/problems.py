"""Pydantic's complaints as one ScenarioError: YAML path, value, what is allowed, the nearest name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from testbed.core.errors import ScenarioError, nearest_name
from testbed.scenarios.block_keys import allowed_keys, tag_names

BlockT = TypeVar("BlockT", bound=BaseModel)

_EXPECTED: Mapping[str, str] = MappingProxyType(
    {
        "int_type": "a whole number is expected",
        "float_type": "a number is expected",
        "finite_number": "a finite number is expected",
        "bool_type": "true or false is expected",
        "string_type": "a text is expected",
        "list_type": "a list is expected",
        "dict_type": "a mapping is expected",
        "model_type": "a mapping is expected",
        "model_attributes_type": "a mapping is expected",
        "invalid_key": "a key must be a text",
        "string_pattern_mismatch": "not a name",
        "string_too_long": "too long",
    }
)
# Kind of complaint -> (problem, what is allowed, key of the limit in pydantic's context)
_LIMITS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "greater_than_equal": ("too small", "at least {}", "ge"),
        "greater_than": ("too small", "more than {}", "gt"),
        "less_than_equal": ("too large", "at most {}", "le"),
        "less_than": ("too large", "less than {}", "lt"),
        "too_short": ("too few entries", "at least {}", "min_length"),
        "too_long": ("too many entries", "at most {}", "max_length"),
        "string_too_short": ("the text is empty", "at least {} character", "min_length"),
    }
)
_NAME_RULE = "letters, digits, '.', '_' and '-' after a first letter or digit"
_LONGEST_VALUE = 80


def validate(block: type[BlockT], data: Any) -> BlockT:
    """The block that `data` describes.

    Raises ScenarioError for the first thing that is wrong, located by its YAML path within `data`.
    """
    try:
        return block.model_validate(data)
    except ValidationError as error:
        raise _as_scenario_error(error, block, data) from None


def _as_scenario_error(error: ValidationError, block: type[BaseModel], data: Any) -> ScenarioError:
    found = error.errors(include_url=False)
    # A misspelt key is two complaints, one missing and one unknown: the second says what is meant.
    first = next((item for item in found if item["type"] in {"extra_forbidden", "invalid_key"}), found[0])
    location, kind = first["loc"], first["type"]
    path = _yaml_path(location, data, missing=kind == "missing")
    carried = first.get("ctx", {}).get("error")
    if isinstance(carried, ScenarioError):
        return _at(carried, path)
    if kind == "missing":
        return ScenarioError("required key is missing", path=path, allowed=_hint(str(location[-1]), location))
    if kind == "extra_forbidden":
        known = allowed_keys(block, location[:-1])
        nearest = nearest_name(str(location[-1]), known)
        return ScenarioError("unknown key", path=path, allowed=known or None, nearest=nearest)
    if kind == "union_tag_not_found":
        tag = first["ctx"]["discriminator"].strip("'")
        return ScenarioError("required key is missing", path=f"{path}.{tag}", allowed=tag_names(block, location))
    if kind in {"union_tag_invalid", "literal_error"}:
        return _not_a_choice(first, path)
    allowed = allowed_keys(block, location) if kind in {"model_type", "model_attributes_type"} else []
    return _wrong_value(first, path, allowed)


def _at(error: ScenarioError, path: str) -> ScenarioError:
    """An error of a part, whose own path starts there, as one of the whole."""
    inner = ".".join(part for part in (path, error.path) if part)
    return ScenarioError(error.problem, path=inner, value=error.value, allowed=error.allowed, nearest=error.nearest)


def _hint(key: str, location: tuple[int | str, ...]) -> str | None:
    """A profile that lacks its numbers was perhaps meant as a reference to one."""
    if len(location) < 2 or location[-2] not in {"device", "server", "link"}:  # noqa: PLR2004 - profile and key
        return None
    return f"every number of a {location[-2]}; or NAME or {{use: NAME, {key}: ...}} for one of the catalogue"


def _not_a_choice(first: Mapping[str, Any], path: str) -> ScenarioError:
    context = first["ctx"]
    listed = str(context.get("expected_tags") or context.get("expected"))
    choices = [part.strip(" '") for part in listed.replace(" or ", ", ").split(",")]
    value = first["input"]
    if "tag" in context:  # the tag is the wrong value, not the whole block
        tag = context["discriminator"].strip("'")
        value, path = context["tag"], f"{path}.{tag}"
    nearest = nearest_name(value, choices) if isinstance(value, str) else None
    return ScenarioError("not one of the choices", path=path, value=_shown(value), allowed=choices, nearest=nearest)


def _wrong_value(first: Mapping[str, Any], path: str, keys: list[str]) -> ScenarioError:
    kind, context, value = first["type"], first.get("ctx", {}), _shown(first["input"])
    if kind in _LIMITS:
        problem, allowed, key = _LIMITS[kind]
        return ScenarioError(problem, path=path, value=value, allowed=allowed.format(context[key]))
    if kind == "string_pattern_mismatch":
        return ScenarioError(_EXPECTED[kind], path=path, value=value, allowed=_NAME_RULE)
    problem = _EXPECTED.get(kind, first["msg"][0].lower() + first["msg"][1:])
    if first["input"] is None:
        problem += ", and there is nothing"
    return ScenarioError(problem, path=path, value=value, allowed=[f"the keys {', '.join(keys)}"] if keys else None)


def _shown(value: object) -> object:
    """A value as far as it fits into one line; None for lists and mappings, which the path says enough of."""
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 3] + "..."
    return value if isinstance(value, (int, float)) else None


def _yaml_path(location: tuple[int | str, ...], data: Any, *, missing: bool) -> str:
    """``fleet[0].link.loss``; the tags that pydantic adds for tagged unions are left out."""
    text, node = "", data
    for position, part in enumerate(location):
        if isinstance(part, int) and isinstance(node, list):
            text += f"[{part}]"
            node = node[part] if part < len(node) else None
        elif isinstance(node, Mapping) and part in node:
            text, node = f"{text}.{part}", node[part]
        elif missing and position == len(location) - 1:
            text = f"{text}.{part}"
    return text.lstrip(".")
