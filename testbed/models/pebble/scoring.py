"""Score choices as the LM evaluation harness does: by summed log-probability after the context, in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from testbed.models.likelihood import LogitsOf, Pair, score_pairs
from testbed.models.pebble.tasks import Item
from testbed.models.pebble.tokenizer import MAX_CONTEXT_TOKENS, PAD_ID

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


def score_items(model: LlamaForCausalLM, tokenizer: Tokenizer, items: Sequence[Item]) -> list[Scored]:
    """Score every item; the model keeps its train or eval mode."""
    was_training = model.training
    model.train(False)
    scored = score_choices(lambda inputs: _dense_logits(model, inputs), tokenizer, items)
    model.train(was_training)
    return scored


def score_choices(
    logits_of: LogitsOf,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    *,
    batch_size: int = ROWS_PER_BATCH,
    observe: Callable[[int], None] | None = None,
) -> list[Scored]:
    """Score every item with whatever computes the logits; `observe` is told of each batch's finished choices."""
    pairs = [pair for item in items for pair in _pairs(tokenizer, item)]
    found = score_pairs(logits_of, pairs, max_tokens=MAX_CONTEXT_TOKENS, batch_size=batch_size, observe=observe)
    logprobs = iter(found)
    return [judge(item.choices, item.gold, [next(logprobs).logprob for _ in item.choices]) for item in items]


def accuracy_by_kind(scored: Sequence[Scored], items: Sequence[Item]) -> dict[str, float]:
    """The share of items of each kind whose right choice has the largest log-probability."""
    right: dict[str, list[bool]] = {}
    for one, item in zip(scored, items, strict=True):
        right.setdefault(item.kind, []).append(one.chosen == item.gold)
    return {kind: sum(hits) / len(hits) for kind, hits in right.items()}


def _pairs(tokenizer: Tokenizer, item: Item) -> list[Pair]:
    context = tokenizer.encode(item.context).ids
    return [Pair(context, tokenizer.encode(text, add_special_tokens=False).ids) for text in item.choices]


@torch.no_grad()
def _dense_logits(model: LlamaForCausalLM, inputs: Sequence[Sequence[int]]) -> list[npt.NDArray[np.float32]]:
    """[n, V] of every input, run as one batch.

    Padding stands to the right, where a causal model's earlier positions never see it.
    """
    ids_BT = torch.full((len(inputs), max(map(len, inputs))), PAD_ID)
    for row, ids in enumerate(inputs):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
    logits_BTV: npt.NDArray[np.float32] = model(input_ids=ids_BT, use_cache=False).logits.float().numpy()
    return [logits_BTV[row, : len(ids)] for row, ids in enumerate(inputs)]


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
