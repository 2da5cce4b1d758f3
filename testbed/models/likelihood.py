"""Log-likelihoods of continuations, as the field's evaluation harness computes them, whatever computes the logits.

One path for every scored text: the input is context and continuation without the last token, cut from the left to the
model's length; log-softmax in float32; the sum over the continuation's tokens. Inputs that are equal run once.

Shapes: n tokens of an input, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

LogitsOf = Callable[[Sequence[Sequence[int]]], Sequence[npt.NDArray[np.float32]]]  # a batch of inputs -> [n, V] each


class Pair(NamedTuple):
    """Token ids of a context and of what is scored after it."""

    context: Sequence[int]
    continuation: Sequence[int]


class Likelihood(NamedTuple):
    """Summed log-probability (nats) of a continuation, and whether greedy decoding would have written it."""

    logprob: float
    is_greedy: bool


def score_pairs(
    logits_of: LogitsOf,
    pairs: Sequence[Pair],
    *,
    max_tokens: int,
    batch_size: int,
    observe: Callable[[int], None] | None = None,
) -> list[Likelihood]:
    """The likelihood of every pair, in order; `observe` is told how many pairs each batch has finished.

    Batches are made of inputs of like lengths, longest first.
    """
    places: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        places[tuple([*pair.context, *pair.continuation][-(max_tokens + 1) :][:-1])].append(place)
    inputs = sorted(places, key=lambda ids: (-len(ids), ids))
    found: dict[int, Likelihood] = {}
    for first in range(0, len(inputs), batch_size):
        batch = inputs[first : first + batch_size]
        for ids, logits_nV in zip(batch, logits_of(batch), strict=True):
            found |= {place: continuation_likelihood(logits_nV, pairs[place].continuation) for place in places[ids]}
        if observe is not None:
            observe(sum(len(places[ids]) for ids in batch))
    return [found[place] for place in range(len(pairs))]


def continuation_likelihood(logits_nV: npt.NDArray[np.float32], continuation: Sequence[int]) -> Likelihood:
    """Of the tokens that the last positions of `logits_nV` predict; of a longer continuation its end."""
    tokens_c = torch.tensor(list(continuation)[-len(logits_nV) :])
    logprobs_cV = torch.from_numpy(logits_nV[-len(tokens_c) :]).log_softmax(-1)
    is_greedy = bool((logprobs_cV.argmax(-1) == tokens_c).all())
    return Likelihood(float(logprobs_cV.gather(-1, tokens_c[:, None])[:, 0].sum()), is_greedy)
