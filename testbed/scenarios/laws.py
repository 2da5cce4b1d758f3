"""Laws that a workload draws from: of numbers of tokens and turns."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.scenarios.base import Block, as_pydantic

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
    """One of these values, each equally likely."""

    law: Literal["empirical"]
    values: list[NumTokens] = Field(min_length=1)


Length = Annotated[FixedLength | UniformLength | LognormalLength | EmpiricalLength, Field(discriminator="law")]
