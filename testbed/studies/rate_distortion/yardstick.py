"""What a codec's damage is measured on: texts, and choice items of pebble's world where the model knows it.

Shapes: n tokens of an input, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from testbed.core.errors import ModelError
from testbed.models.pebble.tasks import Item, build_items
from testbed.models.pebble.world import build_world
from testbed.models.source import PEBBLE, ModelSource, resolve
from testbed.models.texts import held_out_texts, read_texts, token_rows
from testbed.models.tokenizer import Tokenizer, load_tokenizer

F32Array = npt.NDArray[np.float32]
F64Array = npt.NDArray[np.float64]
Ids = tuple[int, ...]

LONGEST = 256
CALIBRATION_TOKENS = 4_000
AT_CHANCE = "yes_no"  # pebble answers these no better than a coin, so they show no damage
_FIRST_CALIBRATION_TEXT = 100_000  # of pebble's corpus: far from those that are measured
_NUM_CORPUS_TEXTS = 1_500


class Continuation(NamedTuple):
    """What is scored after which input: the last tokens of ``input + continuation``."""

    place: int
    tokens: Ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """Inputs, each different: first the texts (which predict `targets`), then what the choices need.

    ``choices`` holds the continuations of every item, ``gold`` which is right. ``calibration`` texts are for what the
    two sides of a session agree on.
    """

    inputs: tuple[Ids, ...]
    targets: tuple[Ids, ...]
    choices: tuple[tuple[Continuation, ...], ...]
    gold: tuple[int, ...]
    calibration: tuple[Ids, ...]

    def described(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "texts": len(self.targets),
            "text_tokens": sum(map(len, self.targets)),
            "items": len(self.gold),
            "inputs": len(self.inputs),
            "input_tokens": sum(map(len, self.inputs)),
        }


class Scores(NamedTuple):
    """What a model said: log-probabilities [n, V] of every text, and the sum of every choice of every item."""

    texts: Sequence[F64Array]
    choices: Sequence[tuple[float, ...]]


def make_yardstick(
    source: ModelSource, *, text: Path | None, tokenizer_file: Path | None, num_tokens: int, per_kind: int | None
) -> Yardstick:
    """Texts of a file, or held-out documents of pebble's corpus; `per_kind` items of each kind, or all of them.

    Items are left out where the model's tokenizer is not pebble's: any other model is at chance on them. Of a file the
    first texts are measured and the last ones calibrate. Raises ModelError for a text that is too short.
    """
    tokenizer = load_tokenizer(source, tokenizer_file)
    longest = min(LONGEST, source.shape.max_positions)
    if text is None:
        texts = held_out_texts(_NUM_CORPUS_TEXTS)
        others: Sequence[str] = held_out_texts(_NUM_CORPUS_TEXTS, start=_FIRST_CALIBRATION_TEXT)
    else:
        whole = read_texts(text)
        texts, others = whole[: -(-len(whole) // 2)], whole[len(whole) // 2 + 1 :][::-1]
    rows = token_rows(tokenizer, texts, num_tokens=num_tokens, longest=longest)
    calibration = token_rows(tokenizer, others, num_tokens=CALIBRATION_TOKENS, longest=longest)
    if not rows or not calibration:
        raise ModelError("the text is too short", file=text, allowed="two texts or more, separated by empty lines")
    rows = [list(row) for row in dict.fromkeys(map(tuple, rows))]
    items = choice_items(per_kind) if knows_pebble(source) else []
    places: dict[Ids, int] = {}
    for row in rows:
        places.setdefault(tuple(row[:-1]), len(places))
    targets = {places[tuple(row[:-1])]: tuple(row[1:]) for row in rows}
    choices = tuple(tuple(_continuations(tokenizer, item, places)) for item in items)
    return Yardstick(
        inputs=tuple(places),
        targets=tuple(targets[place] for place in range(len(targets))),
        choices=choices,
        gold=tuple(item.gold for item in items),
        calibration=tuple(map(tuple, calibration)),
    )


def knows_pebble(source: ModelSource) -> bool:
    """Whether this is pebble or a variant of it, told by its tokenizer."""
    own, pebble = source.tokenizer_file, resolve(PEBBLE).tokenizer_file
    return own is not None and pebble is not None and own.read_bytes() == pebble.read_bytes()


def choice_items(per_kind: int | None) -> list[Item]:
    """Pebble's own items of the kinds that it answers."""
    return [item for item in build_items(build_world(), per_kind) if item.kind != AT_CHANCE]


def _continuations(tokenizer: Tokenizer, item: Item, places: dict[Ids, int]) -> Iterator[Continuation]:
    """The item's choices; choices of one token share the context as their input."""
    context = tokenizer.encode(item.context)
    for choice in item.choices:
        tokens = tuple(tokenizer.encode(item.context + choice)[len(context) :])
        ids = tuple([*context, *tokens][:-1])
        yield Continuation(places.setdefault(ids, len(places)), tokens)


def score(yardstick: Yardstick, logits_of: Mapping[int, F32Array]) -> Scores:
    """From the logits [n, V] of every input, by its place."""
    logprobs = {place: log_softmax(logits.astype(np.float64), axis=-1) for place, logits in logits_of.items()}
    texts = [logprobs[place] for place in range(len(yardstick.targets))]
    sums = [
        tuple(_summed(logprobs[one.place], one.tokens) for one in continuations) for continuations in yardstick.choices
    ]
    return Scores(texts, sums)


def compare(yardstick: Yardstick, scores: Scores, before: Scores) -> dict[str, float | None]:
    """Damage: what differs from the unsplit model's scores on the same inputs; None where nothing can be said.

    KL is of the unsplit model's next-token distribution from the split one's, in nats, a mean over all text positions.
    """
    nats = kl = 0.0
    agree = count = 0
    for logprob_nV, before_nV, targets in zip(scores.texts, before.texts, yardstick.targets, strict=True):
        nats -= float(logprob_nV[np.arange(len(targets)), list(targets)].sum())
        kl += float((np.exp(before_nV) * (before_nV - logprob_nV)).sum())
        agree += int((logprob_nV.argmax(-1) == before_nV.argmax(-1)).sum())
        count += len(targets)
    chosen, chosen_before = ([_largest(sums) for sums in one.choices] for one in (scores, before))
    num_items = len(yardstick.gold)
    right = sum(one == gold for one, gold in zip(chosen, yardstick.gold, strict=True))
    flips = sum(one != other for one, other in zip(chosen, chosen_before, strict=True))
    return {
        "kl_nats": _finite(kl / count),
        "perplexity": _finite(math.exp(min(nats / count, 700.0))) if math.isfinite(nats) else None,
        "agreement": agree / count,
        "accuracy": right / num_items if num_items else None,
        "flip_rate": flips / num_items if num_items else None,
    }


def _summed(logprob_nV: F64Array, tokens: Ids) -> float:
    return float(logprob_nV[np.arange(len(logprob_nV) - len(tokens), len(logprob_nV)), list(tokens)].sum())


def _largest(sums: tuple[float, ...]) -> int:
    """The choice with the largest sum; NaN is never chosen but by all-NaN, which counts as no choice."""
    return -1 if not np.isfinite(sums).any() else int(np.nanargmax(sums))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
