"""Training batches: documents packed into rows, a pure function of (world, step), so that a stopped run can go on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from testbed.models.pebble.corpus import Lesson, document
from testbed.models.pebble.tokenizer import BOS_ID, EOS_ID, PAD_ID
from testbed.models.pebble.world import World

TOKENS_PER_STEP = 3072
ROW_TOKENS = 64
LONG_ROW_TOKENS = 512
LONG_EVERY = 32  # every so many steps the rows are long, so that the model also knows long contexts
DOCUMENTS_PER_STEP = 4096  # more than any step uses: step s owns the numbers from s * this
ANSWER_WEIGHT = 4.0  # a passage's answer can be known,
CHANCE_WEIGHT = 0.25  # what it is about cannot: names and values are dealt at random


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows B of tokens T: `inputs` predict `targets`, whose losses count `weights` (0 for padding)."""

    inputs: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


def build_batch(world: World, tokenizer: Tokenizer, step: int, lesson: Lesson) -> Batch:
    """The batch of this step."""
    row_tokens = LONG_ROW_TOKENS if step % LONG_EVERY == LONG_EVERY - 1 else ROW_TOKENS
    rows = _pack(_encoded(world, tokenizer, step, lesson), TOKENS_PER_STEP // row_tokens, row_tokens + 1)
    ids_BT = torch.full((len(rows), row_tokens + 1), PAD_ID)
    weight_BT = torch.zeros(len(rows), row_tokens + 1)
    for index, (ids, weights) in enumerate(rows):
        ids_BT[index, : len(ids)] = torch.tensor(ids)
        weight_BT[index, : len(ids)] = torch.tensor(weights)
    return Batch(inputs=ids_BT[:, :-1], targets=ids_BT[:, 1:], weights=weight_BT[:, 1:])


def _encoded(world: World, tokenizer: Tokenizer, step: int, lesson: Lesson) -> list[tuple[list[int], list[float]]]:
    """Documents of this step until they hold as many tokens as the batch, as (token ids, loss weights)."""
    start = step * DOCUMENTS_PER_STEP
    found: list[tuple[list[int], list[float]]] = []
    num_tokens = 0
    while num_tokens < TOKENS_PER_STEP:
        chunk = [document(world, start + len(found) + offset, lesson) for offset in range(32)]
        stems = tokenizer.encode_batch([one.stem for one in chunk], add_special_tokens=False)
        answers = tokenizer.encode_batch([one.answer for one in chunk], add_special_tokens=False)
        for stem, answer in zip(stems, answers, strict=True):
            found.append(_weighted(stem.ids, answer.ids))
            num_tokens += len(found[-1][0])
    return found


def _weighted(stem: list[int], answer: list[int]) -> tuple[list[int], list[float]]:
    """A begin token starts each document and is never predicted; what can be known weighs more than what is dealt."""
    stem_weight, answer_weight = (CHANCE_WEIGHT, ANSWER_WEIGHT) if answer else (1.0, 1.0)
    ids = [BOS_ID, *stem, *answer, EOS_ID]
    return ids, [0.0] + [stem_weight] * len(stem) + [answer_weight] * len(answer) + [1.0]


def _pack(
    encoded: list[tuple[list[int], list[float]]], num_rows: int, capacity: int
) -> list[tuple[list[int], list[float]]]:
    """First fit: each document goes whole into the first row with room, or is left out of this step."""
    rows: list[tuple[list[int], list[float]]] = [([], []) for _ in range(num_rows)]
    for ids, weights in encoded:
        for row_ids, row_weights in rows:
            if len(row_ids) + len(ids) <= capacity:
                row_ids.extend(ids)
                row_weights.extend(weights)
                break
    return rows
