"""What the devices are asked: when requests come, which prompts, how many tokens to answer."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.scenarios.base import Block, FileName, Frequency, TimeNs, as_pydantic


class PoissonArrivals(Block):
    """Every device sends on its own, with exponential gaps."""

    kind: Literal["poisson"]
    rate_per_device: Frequency
    requests_per_device: int = Field(ge=1)


class TimedArrivals(Block):
    """Every device sends at these instants."""

    kind: Literal["times"]
    times: list[TimeNs] = Field(min_length=1)


class TraceArrivals(Block):
    """A CSV file with a header row gives the arrivals of the whole group; each goes to a device drawn by key.

    `prompt_column` and `output_column`, where given, also set the lengths (with random prompt ids).
    """

    kind: Literal["trace"]
    file: FileName
    time_column: str
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    prompt_column: str | None = None
    output_column: str | None = None
    limit: int | None = Field(default=None, ge=1)


Arrivals = Annotated[PoissonArrivals | TimedArrivals | TraceArrivals, Field(discriminator="kind")]


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


class TextPrompts(Block):
    """Texts in turn: inline, or the non-empty lines of a UTF-8 file. Needs a tokenizer."""

    kind: Literal["text"]
    texts: list[str] | None = Field(default=None, min_length=1)
    file: FileName | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.texts is None) == (self.file is None):
            raise as_pydantic(ScenarioError("give either texts or file, not both or neither"))
        return self


class IdPrompts(Block):
    """Token ids in turn: inline, or a JSONL file with a list of ids, or a mapping with `ids`, a line."""

    kind: Literal["ids"]
    ids: list[list[int]] | None = Field(default=None, min_length=1)
    file: FileName | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.ids is None) == (self.file is None):
            raise as_pydantic(ScenarioError("give either ids or file, not both or neither"))
        return self


class RandomPrompts(Block):
    """Uniform random ids: for models without a tokenizer, and where only lengths matter."""

    kind: Literal["random"]
    length: Length


class CorpusPrompts(Block):
    """Held-out openings from the corpus of the shipped model `pebble`."""

    kind: Literal["corpus"]


Prompts = Annotated[TextPrompts | IdPrompts | RandomPrompts | CorpusPrompts, Field(discriminator="kind")]


class Workload(Block):
    arrivals: Arrivals
    prompts: Prompts
    output_tokens: Length  # the most a request may generate
    ignore_eos: bool = False  # generate on to the full length
