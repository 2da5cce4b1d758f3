"""Laws that a workload draws from: of numbers of tokens and turns, and of times between them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.units import format_seconds, ns_to_seconds
from testbed.scenarios.base import Block, FileName, PositiveTimeNs, TimeNs, as_pydantic

NumTokens = Annotated[int, Field(ge=1, lt=10**9)]


class FixedLength(Block):
    law: Literal["fixed"]
    value: NumTokens


class UniformLength(Block):
    """Whole numbers from low to high, both included."""

    law: Literal["uniform"]
    low: NumTokens
    high: NumTokens

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high < self.low:
            raise as_pydantic(
                ScenarioError("high is below low", path="high", value=self.high, allowed=f"at least {self.low}")
            )
        return self


class LognormalLength(Block):
    """Rounded and cut to [1, max]."""

    law: Literal["lognormal"]
    mean: float = Field(gt=0)
    std: float = Field(gt=0)
    max: NumTokens


class EmpiricalLength(Block):
    """One of these values, or of those in a column of a CSV file with a header row, each equally likely."""

    law: Literal["empirical"]
    values: list[NumTokens] | None = Field(default=None, min_length=1)
    file: FileName | None = None
    column: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.values is None) == (self.file is None):
            raise as_pydantic(ScenarioError("give either values or a file, not both or neither"))
        if (self.file is None) != (self.column is None):
            raise as_pydantic(ScenarioError("a file and its column go together", path="column"))
        return self


class GeometricLength(Block):
    """As many as it takes until an event of probability 1 / mean happens, cut at max."""

    law: Literal["geometric"]
    mean: float = Field(ge=1)
    max: NumTokens


Length = Annotated[
    FixedLength | UniformLength | LognormalLength | EmpiricalLength | GeometricLength, Field(discriminator="law")
]


class FixedTime(Block):
    law: Literal["fixed"]
    value: TimeNs


class UniformTime(Block):
    """Anything between low and high."""

    law: Literal["uniform"]
    low: TimeNs
    high: TimeNs

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high < self.low:
            allowed = f"at least {format_seconds(ns_to_seconds(self.low))}"
            value = format_seconds(ns_to_seconds(self.high))
            raise as_pydantic(ScenarioError("high is below low", path="high", value=value, allowed=allowed))
        return self


class ExponentialTime(Block):
    """Without memory."""

    law: Literal["exponential"]
    mean: PositiveTimeNs


class LognormalTime(Block):
    """By the mean and standard deviation of the time itself."""

    law: Literal["lognormal"]
    mean: PositiveTimeNs
    std: PositiveTimeNs


Duration = Annotated[FixedTime | UniformTime | ExponentialTime | LognormalTime, Field(discriminator="law")]
