"""Policies that decide once and for all: the yardsticks that adaptive ones are held against."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from testbed.core.plan import Decision, Mode, Observation
from testbed.scenarios.codec_setting import CodecSetting
from testbed.scenarios.schema import PolicyConfig


class Static:
    """Every request is cut at the same layer."""

    class Config(PolicyConfig):
        kind: Literal["static"] = "static"
        split: int = Field(ge=0)
        codec: CodecSetting = "raw-float32"
        mode: Mode = "stateful"

    def __init__(self, config: Config) -> None:
        self._decision = Decision(split=config.split, codec=config.codec, mode=config.mode)

    def splits(self, num_layers: int) -> tuple[int, ...]:
        return (self._decision.split,)

    def codecs(self) -> tuple[str, ...]:
        return (self._decision.codec,)

    def fixed(self, num_layers: int) -> Decision:
        """What is decided for every request, whatever is observed."""
        return self._decision

    def decide(self, observation: Observation, state: None = None) -> tuple[Decision, None]:
        return self._decision, state


class CloudOnly:
    """Nothing runs on the device: token ids go up, the server holds the whole model and streams tokens down."""

    class Config(PolicyConfig):
        kind: Literal["cloud-only"] = "cloud-only"

    def __init__(self, config: Config) -> None:
        self._decision = Decision(split=0, codec="raw-float32")

    def splits(self, num_layers: int) -> tuple[int, ...]:
        return (0,)

    def codecs(self) -> tuple[str, ...]:
        return (self._decision.codec,)

    def fixed(self, num_layers: int) -> Decision:
        """What is decided for every request, whatever is observed."""
        return self._decision

    def decide(self, observation: Observation, state: None = None) -> tuple[Decision, None]:
        return self._decision, state


class EdgeOnly:
    """The device holds the whole model; nothing crosses the link."""

    class Config(PolicyConfig):
        kind: Literal["edge-only"] = "edge-only"

    def __init__(self, config: Config) -> None:
        pass

    def splits(self, num_layers: int) -> tuple[int, ...]:
        return (num_layers,)

    def codecs(self) -> tuple[str, ...]:
        return ("raw-float32",)

    def fixed(self, num_layers: int) -> Decision:
        """What is decided for every request, whatever is observed."""
        return Decision(split=num_layers, codec="raw-float32")

    def decide(self, observation: Observation, state: None = None) -> tuple[Decision, None]:
        return self.fixed(observation.num_layers), state
