"""What a group's requests are asked: lists of prompts that they take in turn, or random ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from testbed.core.errors import ScenarioError
from testbed.core.rng import Stream
from testbed.scenarios.prompts import CorpusPrompts, IdPrompts, Prompts, RandomPrompts, TextPrompts
from testbed.sim.files import read_id_prompts, read_text_prompts

Ids = tuple[int, ...]
_NUM_CORPUS_PROMPTS = 256  # taken in turn


class Encoder(Protocol):
    """The part of a tokenizer that prompts need."""

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReader:
    """Reads the prompts that a scenario lists. `tokenizer` is asked for only where they are text."""

    seed: int
    vocab_size: int
    tokenizer: Callable[[], Encoder]

    def listed(self, prompts: Prompts) -> Sequence[Ids]:
        """The prompts that requests take in turn; empty where ids are random."""
        match prompts:
            case TextPrompts():
                texts = prompts.texts if prompts.texts is not None else read_text_prompts(str(prompts.file))
                return self._encoded(texts)
            case CorpusPrompts():
                return self._encoded(_corpus_texts(self.seed))
            case IdPrompts():
                ids = prompts.ids if prompts.ids is not None else read_id_prompts(str(prompts.file))
                return [self._checked(item, number) for number, item in enumerate(ids, 1)]
            case RandomPrompts():
                return []

    def _encoded(self, texts: Sequence[str]) -> list[Ids]:
        tokenizer = self.tokenizer()
        prompts = [tuple(tokenizer.encode(text)) for text in texts]
        for text, prompt in zip(texts, prompts, strict=True):
            if not prompt:
                raise ScenarioError("a prompt has no token", value=text)
        return prompts

    def _checked(self, ids: Sequence[int], number: int) -> Ids:
        allowed = f"ids from 0 to {self.vocab_size - 1}, at least one"
        if not ids:
            raise ScenarioError(f"prompt {number} is empty", allowed=allowed)
        outside = next((item for item in ids if not 0 <= item < self.vocab_size), None)
        if outside is not None:
            raise ScenarioError(f"prompt {number} has an id outside the vocabulary", value=outside, allowed=allowed)
        return tuple(ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomIds:
    """Uniform ids of the vocabulary, keyed by a request's entity and counter."""

    stream: Stream
    vocab_size: int

    def of(self, entity: int, counter: int, length: int) -> Ids:
        draws = self.stream.u64_run(self.stream.u64(entity, counter), 0, length)
        return tuple(int(draw) % self.vocab_size for draw in draws)


def _corpus_texts(seed: int) -> Sequence[str]:
    from testbed.models.pebble.prompts import prompts  # noqa: PLC0415 - builds the corpus's world

    return prompts(seed, _NUM_CORPUS_PROMPTS)
