"""What a link is made of, as a file describes it: each piece is a mapping whose `kind` names a registry row.

The row's class has a `Config`, its piece's keys, next to what it configures.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BeforeValidator

from testbed.core.errors import ScenarioError
from testbed.core.registry import Registry
from testbed.scenarios.base import Block, PositiveSizeBytes, as_pydantic
from testbed.scenarios.problems import validate


class PieceConfig(Block):
    """Base of every piece's own configuration."""

    kind: str

    @property
    def needs_packets(self) -> str:
        """Why a link with this piece can't be computed message by message; "" where it can."""
        return ""


class RateConfig(PieceConfig):
    """How fast bits leave."""


class LossConfig(PieceConfig):
    """Which packets never arrive."""

    follows_order: ClassVar[bool] = False  # a packet's fate depends on what was sent before it


class QueueConfig(PieceConfig):
    """Who waits, and who is dropped."""

    limit: PositiveSizeBytes  # waiting and in service, a direction


class OutageConfig(PieceConfig):
    """When a link carries nothing: packets wait, or with `drop` what leaves then is lost."""

    drop: bool = False

    @property
    def needs_packets(self) -> str:
        return "outages drop what leaves at their time, packet by packet" if self.drop else ""


class TransportConfig(PieceConfig):
    """What the ends of a link do about loss, order and speed."""

    looks_ahead: ClassVar[bool] = False  # by messages, it draws the fates of packets before they are sent
    least_mtu_bytes: ClassVar[int] = 0


class DisciplineConfig(PieceConfig):
    """Whose turn it is on a medium that links share."""

    @property
    def takes_weights(self) -> bool:
        """Whether a group's `weight` counts."""
        return False


def piece(registry: Registry, *, short_kind: str = "", short_key: str = "") -> BeforeValidator:
    """Reads a mapping by its `kind`.

    A bare value stands for the kind `short_kind` with that value under `short_key`; without a `short_kind`, for the
    kind of that name.
    """

    def read(value: object) -> Any:
        if isinstance(value, PieceConfig):
            return value
        try:
            if isinstance(value, dict):
                return validate(registry.load(_kind(registry, value)).Config, value)
            if short_kind:
                return _short(registry, short_kind, short_key, value)
            return validate(registry.load(_kind(registry, {"kind": value})).Config, {"kind": value})
        except ScenarioError as error:
            raise as_pydantic(error) from None

    return BeforeValidator(read)


def _short(registry: Registry, kind: str, key: str, value: object) -> Any:
    try:
        return validate(registry.load(kind).Config, {"kind": kind, key: value})
    except ScenarioError as error:  # what is wrong is the bare value itself
        raise ScenarioError(error.problem, value=error.value, allowed=error.allowed, nearest=error.nearest) from None


def _kind(registry: Registry, data: dict[str, Any]) -> str:
    if "kind" not in data:
        raise ScenarioError("required key is missing", path="kind", allowed=sorted(registry))
    kind = data["kind"]
    if not isinstance(kind, str):
        raise ScenarioError("a name is expected", path="kind", value=kind, allowed=sorted(registry))
    try:
        registry.check(kind)
    except ScenarioError as error:
        raise error.located(path="kind") from None
    return kind
