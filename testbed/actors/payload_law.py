"""The payload law: how many bytes a modelled message takes where its content decides [our design].

Fitted to real messages of one model by `testbed study payload-law`: for each codec setting and cut the quantiles of a
prefill's size at several numbers of tokens, and of a decode step's. A modelled message's size is drawn from them by
the request's own key and the tokens before it, so that the same request draws the same sizes whoever else there is.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.rng import Stream
from testbed.scenarios.base import Block, as_pydantic
from testbed.scenarios.problems import validate

FILE_NAME = "payload_law.json"  # beside a model's weights
SizeOf = Callable[[int, int], int]  # (new tokens, tokens before them) -> bytes of the message

Quantiles = list[int]


class HeldOut(Block):
    """Mean absolute difference between the law's quantiles and those of other text, as a share of the mean size."""

    prefill: float = Field(ge=0)
    decode: float = Field(ge=0)


class MessageSizes(Block):
    """Quantiles in bytes, in equal steps of probability from 0 to 1."""

    codec: str
    split: int = Field(ge=1)
    tokens: list[int] = Field(min_length=1)  # of the prefills, ascending from 1
    prefill: list[Quantiles]  # one row for each of `tokens`
    decode: Quantiles = Field(min_length=2)
    held_out: HeldOut

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        rows = [self.tokens, *self.prefill, self.decode]
        is_ascending = all(list(row) == sorted(row) and row[0] >= 1 for row in rows if row)
        if not is_ascending or {len(row) for row in self.prefill} != {len(self.decode)} or self.tokens[0] != 1:
            raise as_pydantic(ScenarioError("quantiles that don't rise, or rows of different length", path="prefill"))
        if len(self.prefill) != len(self.tokens) or len(set(self.tokens)) != len(self.tokens):
            raise as_pydantic(ScenarioError("one row for each number of tokens", path="prefill"))
        return self

    def bytes_of(self, num_tokens: int, past_tokens: int, u: float) -> int:
        """The size at probability u; a step of one token with others before it is a decode step.

        Between two numbers of tokens linear; beyond the last one each token adds what it did on average before.
        """
        if past_tokens and num_tokens == 1:
            return round(_at(self.decode, u))
        above = min(bisect_right(self.tokens, num_tokens), len(self.tokens) - 1)
        if above == 0:
            return round(_at(self.prefill[0], u) * num_tokens)
        below, last = above - 1, self.tokens[-1]
        low_tokens, high_tokens = self.tokens[below], self.tokens[above]
        if num_tokens > last:
            grown = (_mean(self.prefill[-1]) - _mean(self.prefill[below])) / (last - low_tokens)
            return round(_at(self.prefill[-1], u) + grown * (num_tokens - last))
        share = (num_tokens - low_tokens) / (high_tokens - low_tokens)
        low, high = _at(self.prefill[below], u), _at(self.prefill[above], u)
        return round(low + (high - low) * share)

    def drawn(self, stream: Stream, key: int, bound: Callable[[int], int]) -> SizeOf:
        """Sizes of one request's messages, none beyond the codec's own bound for so many tokens."""

        def size_of(num_tokens: int, past_tokens: int) -> int:
            size = self.bytes_of(num_tokens, past_tokens, stream.uniform(key, past_tokens))
            return min(size, bound(num_tokens))

        return size_of


class PayloadLaw(Block):
    """Every law of one model, and what they were fitted on."""

    version: Literal[1] = 1
    model: str
    hidden_size: int = Field(ge=1)
    text: str  # where fitted and held-out text came from
    sequences: int = Field(ge=1)  # of the fit, and as many held out
    laws: list[MessageSizes]

    def by_cut(self) -> dict[tuple[str, int], MessageSizes]:
        """By (codec setting, split)."""
        return {(law.codec, law.split): law for law in self.laws}


def read_payload_law(file: Path, hidden_size: int) -> PayloadLaw:
    """A law from its file. Raises ScenarioError for a file that is none, or one of another model's hidden size."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"can't be read: {error.strerror}", file=file) from None
    except ValueError as error:
        raise ScenarioError(f"not JSON: {error}", file=file) from None
    try:
        law = validate(PayloadLaw, data)
    except ScenarioError as error:
        raise error.located(file=file) from None
    if law.hidden_size != hidden_size:
        raise ScenarioError(
            "fitted to a model of another hidden size", file=file, value=law.hidden_size, allowed=str(hidden_size)
        )
    return law


def _at(quantiles: Sequence[int], u: float) -> float:
    place = u * (len(quantiles) - 1)
    cell = min(int(place), len(quantiles) - 2)
    return quantiles[cell] + (quantiles[cell + 1] - quantiles[cell]) * (place - cell)


def _mean(quantiles: Sequence[int]) -> float:
    """Of the law that is linear between its quantiles."""
    return (sum(quantiles) - (quantiles[0] + quantiles[-1]) / 2) / (len(quantiles) - 1)
