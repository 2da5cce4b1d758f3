"""Score choices as the LM evaluation harness does: by summed log-probability after the context, in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from testbed.models.likelihood import LogitsOf, Pair, score_pairs
from testbed.models.pebble.tasks import Item
from testbed.models.pebble.tokenizer import BOS_ID, EOS_ID, MAX_CONTEXT_TOKENS, PAD_ID

ROWS_PER_BATCH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The log-probabilities (nats) of one item's choices and what follows from them.

    `margin` is the right choice's log-probability less the best wrong one's; `chosen` takes the largest sum (acc),
    `chosen_by_length` the largest sum by length (acc_norm), in characters unless said otherwise.
    """

    logprobs: tuple[float, ...]
    margin: float
    chosen: int
    chosen_by_length: int


class Encode(Protocol):
    """Text to token ids, with the special tokens of a text's beginning or, where it is no start, without any."""

    def __call__(self, text: str, *, is_start: bool = True) -> Sequence[int]: ...


def score_items(model: LlamaForCausalLM, tokenizer: Tokenizer, items: Sequence[Item]) -> list[Scored]:
    """Score every item; the model keeps its train or eval mode."""
    was_training = model.training
    model.train(False)
    scored = score_choices(dense_logits(model), encoder(tokenizer), items)
    model.train(was_training)
    return scored


def score_choices(
    logits_of: LogitsOf,
    encode: Encode,
    items: Sequence[Item],
    *,
    batch_size: int = ROWS_PER_BATCH,
    observe: Callable[[int], None] | None = None,
) -> list[Scored]:
    """Score every item with whatever computes the logits; `observe` is told of each batch's finished choices."""
    pairs = [pair for item in items for pair in _pairs(encode, item)]
    found = score_pairs(logits_of, pairs, max_tokens=MAX_CONTEXT_TOKENS, batch_size=batch_size, observe=observe)
    logprobs = iter(found)
    return [judge(item.choices, item.gold, [next(logprobs).logprob for _ in item.choices]) for item in items]


def document_pair(encode: Encode, text: str) -> Pair:
    """A whole document after the begin-of-text token; its end token is scored too."""
    return Pair((BOS_ID,), (*encode(text, is_start=False), EOS_ID))


def encoder(tokenizer: Tokenizer) -> Encode:
    """A tokenizer file's backend as scoring uses it."""

    def encode(text: str, *, is_start: bool = True) -> Sequence[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=is_start).ids
        return ids

    return encode


def dense_logits(model: LlamaForCausalLM) -> LogitsOf:
    """The unsplit model's logits, each batch padded to one tensor.

    Padding stands to the right, where a causal model's earlier positions never see it.
    """

    @torch.no_grad()
    def logits_of(inputs: Sequence[Sequence[int]]) -> list[npt.NDArray[np.float32]]:
        ids_BT = torch.full((len(inputs), max(map(len, inputs))), PAD_ID)
        for row, ids in enumerate(inputs):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
        logits_BTV = model(input_ids=ids_BT, use_cache=False).logits.float().numpy()
        return [logits_BTV[row, : len(ids)] for row, ids in enumerate(inputs)]

    return logits_of


def accuracy_by_kind(scored: Sequence[Scored], items: Sequence[Item]) -> dict[str, float]:
    """The share of items of each kind whose right choice has the largest log-probability."""
    right: dict[str, list[bool]] = {}
    for one, item in zip(scored, items, strict=True):
        right.setdefault(item.kind, []).append(one.chosen == item.gold)
    return {kind: sum(hits) / len(hits) for kind, hits in right.items()}


def _pairs(encode: Encode, item: Item) -> list[Pair]:
    context = encode(item.context)
    return [Pair(context, encode(text, is_start=False)) for text in item.choices]


def judge(
    choices: Sequence[str], gold: int, logprobs: Sequence[float], *, length: Callable[[str], int] = len
) -> Scored:
    """What the choices' summed log-probabilities say; `length` is what acc_norm divides by."""
    by_length = [value / length(text) for value, text in zip(logprobs, choices, strict=True)]
    best_wrong = max(value for index, value in enumerate(logprobs) if index != gold)
    return Scored(
        logprobs=tuple(logprobs),
        margin=logprobs[gold] - best_wrong,
        chosen=max(range(len(logprobs)), key=logprobs.__getitem__),
        chosen_by_length=max(range(len(logprobs)), key=by_length.__getitem__),
    )
