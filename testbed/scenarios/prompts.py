"""What a request asks: texts, token ids, or random ids of some length."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.scenarios.base import Block, FileName, as_pydantic
from testbed.scenarios.laws import Length


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
