"""What encodes at the cut, as a user writes it and as it travels: one text.

`int8`, or a mapping with the codec's own settings, {kind: ts-tabq, delta: 0.05}; inside and in results it is the
codec's name with the settings that differ from its defaults, ``ts-tabq(delta=0.05)``, which may be written as well.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, GetJsonSchemaHandler, model_validator
from pydantic_core import core_schema

from testbed.core.errors import ScenarioError
from testbed.core.registry import CODECS
from testbed.scenarios.base import Block, as_pydantic
from testbed.scenarios.problems import validate

# Parts of what a session agrees on
MEANS = "means"  # of each channel
TABLES = "tables"  # of an entropy coder
_TEXT = re.compile(r"([^()]*)\(([^()]*)\)")


class CodecConfig(Block):
    """Base of every codec's own configuration; `kind` names the registry row."""

    kind: str
    entropy: Literal["none", "rans", "zstd"] = "none"
    tables: Literal["message", "agreed", "channel"] = "message"  # of rans: in each message, or agreed on beforehand

    @model_validator(mode="after")
    def _tables_of_rans(self) -> Self:
        if self.tables != "message" and self.entropy != "rans":
            problem = "tables are agreed on for entropy: rans"
            raise as_pydantic(ScenarioError(problem, path="tables", value=self.tables, allowed="message"))
        return self

    def agreed_parts(self) -> frozenset[str]:
        """Names of what both sides must agree on at the start of a session; most settings need nothing."""
        return frozenset() if self.tables == "message" else frozenset({TABLES})


def codec_name(setting: str) -> str:
    """The registry row of a setting."""
    return setting.partition("(")[0]


def read_setting(setting: str) -> CodecConfig:
    """The configuration that a text stands for. Raises ScenarioError for a text that stands for none."""
    found = _TEXT.fullmatch(setting)
    name, inner = found.groups() if found else (setting, "")
    CODECS.check(name)
    data: dict[str, Any] = {"kind": name}
    for part in filter(None, (part.strip() for part in inner.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise ScenarioError("settings of a codec are key=value", value=setting)
        data[key.strip()] = _plain(value.strip())
    return _validated(name, data)


def write_setting(config: CodecConfig) -> str:
    """The one text of a configuration: defaults left out, keys in order."""
    changed = config.model_dump(exclude_defaults=True, exclude={"kind"})
    inner = ",".join(f"{key}={_text(changed[key])}" for key in sorted(changed))
    return f"{config.kind}({inner})" if inner else config.kind


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(text: str) -> bool | int | float | str:
    if text in {"true", "false"}:
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _validated(name: str, data: dict[str, Any]) -> CodecConfig:
    config = validate(CODECS.load(name).Config, data)
    assert isinstance(config, CodecConfig), "a codec's Config is a CodecConfig"
    return config


def _read(value: object) -> object:
    """A text or a mapping to the one text; anything else is left for pydantic to refuse."""
    try:
        if isinstance(value, str):
            return write_setting(read_setting(value))
        if isinstance(value, dict):
            return write_setting(_from_mapping(value))
    except ScenarioError as error:
        raise as_pydantic(error) from None
    return value


def _from_mapping(data: dict[str, Any]) -> CodecConfig:
    kind = data.get("kind")
    if not isinstance(kind, str):
        problem = "a codec's name is expected" if "kind" in data else "required key is missing"
        raise ScenarioError(problem, path="kind", value=kind, allowed=sorted(CODECS))
    try:
        CODECS.check(kind)
    except ScenarioError as error:
        raise error.located(path="kind") from None
    return _validated(kind, data)


class _Schema:
    """For editors: a codec's name, a text with settings, or one mapping for each codec."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        names = list(CODECS)
        text = {"type": "string", "pattern": rf"^({'|'.join(names)})\("}
        return {"anyOf": [{"enum": names}, text, *(_described(name) for name in names)]}


def _described(name: str) -> dict[str, Any]:
    described: dict[str, Any] = CODECS.load(name).Config.model_json_schema()
    return {**described, "title": name, "required": sorted({"kind", *described.get("required", [])})}


CodecSetting = Annotated[str, BeforeValidator(_read), _Schema]
