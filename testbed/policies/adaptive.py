"""Policies that keep the cut and change the codec: by phase, or with the goodput that the device measures."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.plan import Decision, MessageObservation, Observation
from testbed.scenarios.base import BitRate, as_pydantic
from testbed.scenarios.codec_setting import CodecSetting
from testbed.scenarios.schema import PolicyConfig


class Phases:
    """One codec for the prompt's hidden states, another for the decode steps."""

    class Config(PolicyConfig):
        kind: Literal["phases"] = "phases"
        split: int = Field(ge=0)
        prefill: CodecSetting
        decode: CodecSetting

    def __init__(self, config: Config) -> None:
        self._config = config

    def splits(self, num_layers: int) -> tuple[int, ...]:
        return (self._config.split,)

    def codecs(self) -> tuple[str, ...]:
        return (self._config.prefill, self._config.decode)

    def decide(self, observation: Observation, state: None = None) -> tuple[Decision, None]:
        return Decision(split=self._config.split, codec=self._config.prefill), state

    def adapt(self, observation: MessageObservation) -> str:
        return self._config.prefill if observation.step == 0 else self._config.decode


class Ladder:
    """A coarser codec, one rung at a time, while the measured goodput is low; a finer one when it is high again.

    The published method names what may be given up at run time; rungs, thresholds and their rule are our own design.
    A request begins on the first, finest rung. Goodput is what the message before reached, propagation included, so
    that of short messages says more about delay than about rate: thresholds belong to the link.
    """

    class Config(PolicyConfig):
        kind: Literal["ladder"] = "ladder"
        split: int = Field(ge=0)
        rungs: Annotated[list[CodecSetting], Field(min_length=2)]  # finest first
        coarser_below: BitRate
        finer_above: BitRate

        @model_validator(mode="after")
        def _is_a_ladder(self) -> Self:
            if self.finer_above <= self.coarser_below:
                allowed = f"more than coarser_below, {self.coarser_below} bit/s"
                value = f"{self.finer_above} bit/s"
                raise as_pydantic(ScenarioError("too small", path="finer_above", value=value, allowed=allowed))
            for index, rung in enumerate(self.rungs):
                if rung in self.rungs[:index]:
                    raise as_pydantic(ScenarioError("an earlier rung is the same", path=f"rungs[{index}]", value=rung))
            return self

    def __init__(self, config: Config) -> None:
        self._config = config

    def splits(self, num_layers: int) -> tuple[int, ...]:
        return (self._config.split,)

    def codecs(self) -> tuple[str, ...]:
        return tuple(self._config.rungs)

    def decide(self, observation: Observation, state: None = None) -> tuple[Decision, None]:
        return Decision(split=self._config.split, codec=self._config.rungs[0]), state

    def adapt(self, observation: MessageObservation) -> str:
        config, goodput_bps = self._config, observation.goodput_bps
        rung = config.rungs.index(observation.codec)
        if goodput_bps is None:
            return observation.codec
        if goodput_bps < config.coarser_below:
            rung = min(rung + 1, len(config.rungs) - 1)
        elif goodput_bps > config.finer_above:
            rung = max(rung - 1, 0)
        return config.rungs[rung]
