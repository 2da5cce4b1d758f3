"""Score choices as the LM evaluation harness does: by summed log-probability after the context, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from testbed.models.pebble.tasks import Item
from testbed.models.pebble.tokenizer import PAD_ID

ROWS_PER_BATCH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The log-probabilities (nats) of one item's choices and what follows from them.

    `margin` is the right choice's log-probability less the best wrong one's; `chosen` takes the largest sum (acc),
    `chosen_by_length` the largest sum per character (acc_norm).
    """

    logprobs: tuple[float, ...]
    margin: float
    chosen: int
    chosen_by_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One choice of one item as tokens; the choice starts at `start`."""

    item: int
    choice: int
    start: int
    ids: list[int]


def score_items(model: LlamaForCausalLM, tokenizer: Tokenizer, items: Sequence[Item]) -> list[Scored]:
    """Score every item; the model keeps its train or eval mode."""
    rows = _rows(tokenizer, items)
    sums: list[dict[int, float]] = [{} for _ in items]
    was_training = model.training
    model.train(False)
    for first in range(0, len(rows), ROWS_PER_BATCH):
        chunk = rows[first : first + ROWS_PER_BATCH]
        for row, logprob in zip(chunk, _sum_logprobs(model, chunk), strict=True):
            sums[row.item][row.choice] = logprob
    model.train(was_training)
    return [_judge(item, [found[i] for i in range(len(item.choices))]) for item, found in zip(items, sums, strict=True)]


def accuracy_by_kind(scored: Sequence[Scored], items: Sequence[Item]) -> dict[str, float]:
    """The share of items of each kind whose right choice has the largest log-probability."""
    right: dict[str, list[bool]] = {}
    for one, item in zip(scored, items, strict=True):
        right.setdefault(item.kind, []).append(one.chosen == item.gold)
    return {kind: sum(hits) / len(hits) for kind, hits in right.items()}


def _rows(tokenizer: Tokenizer, items: Sequence[Item]) -> list[_Row]:
    """All choices as rows, shortest first, so that batches need little padding."""
    rows = []
    for index, item in enumerate(items):
        context = tokenizer.encode(item.context).ids
        for choice, text in enumerate(item.choices):
            ids = context + tokenizer.encode(text, add_special_tokens=False).ids
            rows.append(_Row(item=index, choice=choice, start=len(context), ids=ids))
    return sorted(rows, key=lambda row: len(row.ids))


@torch.no_grad()
def _sum_logprobs(model: LlamaForCausalLM, rows: Sequence[_Row]) -> list[float]:
    longest = max(len(row.ids) for row in rows)
    ids_BT = torch.full((len(rows), longest), PAD_ID)
    counts_BT = torch.zeros(len(rows), longest)
    for index, row in enumerate(rows):
        ids_BT[index, : len(row.ids)] = torch.tensor(row.ids)
        counts_BT[index, row.start : len(row.ids)] = 1.0
    # Padding stands to the right, where a causal model's earlier positions never see it.
    logits_BTV = model(input_ids=ids_BT[:, :-1], use_cache=False).logits.float()
    logprob_BT = logits_BTV.log_softmax(-1).gather(-1, ids_BT[:, 1:, None])[..., 0]
    sums: list[float] = (logprob_BT * counts_BT[:, 1:]).sum(1).tolist()
    return sums


def _judge(item: Item, logprobs: Sequence[float]) -> Scored:
    per_character = [value / len(text) for value, text in zip(logprobs, item.choices, strict=True)]
    best_wrong = max(value for index, value in enumerate(logprobs) if index != item.gold)
    return Scored(
        logprobs=tuple(logprobs),
        margin=logprobs[item.gold] - best_wrong,
        chosen=max(range(len(logprobs)), key=logprobs.__getitem__),
        chosen_by_length=max(range(len(logprobs)), key=per_character.__getitem__),
    )
