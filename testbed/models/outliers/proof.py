"""Measures a variant with outliers against the model it was made from, on text that neither was calibrated on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from testbed.core.errors import ModelError
from testbed.models.outliers.weights import Widening
from testbed.models.source import ModelSource

NUM_CONTINUATIONS = 8
CONTINUATION_TOKENS = 16
ROWS_PER_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class AtCut:
    """The variant's hidden states at one cut; `error` is the largest |A^T x' - x| over the largest |x|.

    `outlier_over_median` compares the outlier channel's root mean square with the median channel's, in all tokens but
    each text's first; `first_over_median` the largest magnitude in a first token with the median one there.
    """

    cut: int
    error: float
    outlier_over_median: float
    first_over_median: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How far the variant is from the original on every position of the text, and greedy continuations.

    ``max_logit_difference`` is what a user sees, both models in float32, and holds the rounding of both.
    ``exact_logit_difference`` is the same in float64, where only the variant's weights are rounded to float32, and
    ``own_rounding`` what float32 alone does to the original's logits, both on the shortest texts.
    """

    num_tokens: int
    max_logit: float
    max_logit_difference: float
    exact_logit_difference: float
    own_rounding: float
    num_equal_continuations: int
    num_continuations: int
    cuts: tuple[AtCut, ...]

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


class _ExactNorm(nn.Module):
    """RMSNorm in float64; the library's own always computes in float32."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight = norm.weight.double()
        self.eps = norm.variance_epsilon

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.eps)
        return normed


@torch.inference_mode()
def prove(original: ModelSource, variant: ModelSource, widening: Widening, rows: Sequence[Sequence[int]]) -> Proof:
    """Run both models, as transformers loads them, on texts as token ids.

    Raises ModelError where the variant's logits are not finite.
    """
    models = [_load(source) for source in (original, variant)]
    differences: list[float] = []
    largest, exact, own = 0.0, 0.0, 0.0
    seen: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in range(original.shape.num_layers - 1)]
    for ids_BT, is_text_BT in _batches(rows):
        before, after = (model(ids_BT, output_hidden_states=True, use_cache=False) for model in models)
        logits = [out.logits[is_text_BT] for out in (before, after)]
        if not torch.isfinite(logits[1]).all():
            raise ModelError("the variant's logits are not finite: its constant values are too large for float32")
        if not differences:
            in_float64 = [_in_float64(model)(ids_BT, use_cache=False).logits[is_text_BT] for model in models]
            exact, own = _largest(*in_float64), _largest(logits[0], in_float64[0])
        differences.append(_largest(*logits))
        largest = max(largest, float(logits[0].abs().max()))
        for cut, found in enumerate(seen, start=1):
            for row, length in enumerate(is_text_BT.sum(1).tolist()):
                found.append((before.hidden_states[cut][row, :length], after.hidden_states[cut][row, :length]))
    continued = [_continued(model, rows[:NUM_CONTINUATIONS]) for model in models]
    return Proof(
        num_tokens=sum(map(len, rows)),
        max_logit=largest,
        max_logit_difference=max(differences),
        exact_logit_difference=exact,
        own_rounding=own,
        num_equal_continuations=sum(one == other for one, other in zip(*continued, strict=True)),
        num_continuations=len(continued[0]),
        cuts=tuple(_at_cut(cut, widening, found) for cut, found in enumerate(seen, start=1)),
    )


def _batches(rows: Sequence[Sequence[int]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Token ids [B, T] and what of them is text; padding stands to the right, where earlier positions never see it."""
    ordered = sorted(rows, key=len)
    for first in range(0, len(ordered), ROWS_PER_BATCH):
        chunk = ordered[first : first + ROWS_PER_BATCH]
        ids_BT = torch.zeros(len(chunk), len(chunk[-1]), dtype=torch.long)
        lengths_B1 = torch.tensor([[len(row)] for row in chunk])
        for index, row in enumerate(chunk):
            ids_BT[index, : len(row)] = torch.tensor(list(row))
        yield ids_BT, torch.arange(ids_BT.shape[1])[None] < lengths_B1


def _largest(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def _load(source: ModelSource) -> Any:
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model: Any = AutoModelForCausalLM.from_pretrained(source.weights_folder(), dtype=torch.float32)
    return model.eval()


def _in_float64(model: Any) -> Any:
    model = copy.deepcopy(model).double()
    for name, part in list(model.named_modules()):
        if type(part).__name__.endswith("RMSNorm"):
            model.set_submodule(name, _ExactNorm(part))
    return model


def _continued(model: Any, rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Greedy continuations of the first halves of texts."""
    found = []
    for tokens in rows:
        ids = torch.tensor([list(tokens[: -(-len(tokens) // 2)])])
        options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": CONTINUATION_TOKENS, "do_sample": False}
        found.append(model.generate(ids, **options)[0].tolist())
    return found


def _at_cut(cut: int, widening: Widening, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> AtCut:
    original_Nd = torch.cat([before for before, _ in pairs]).double()
    back_Nd = torch.cat([after for _, after in pairs]).double() @ widening.lift
    rms_D = torch.cat([after[1:] for _, after in pairs]).square().mean(0).sqrt()
    first_D = torch.cat([after[:1] for _, after in pairs]).abs()
    return AtCut(
        cut=cut,
        error=float((back_Nd - original_Nd).abs().max() / original_Nd.abs().max()),
        outlier_over_median=float(rms_D[widening.outlier_channel] / rms_D.median()),
        first_over_median=float((first_D.amax(-1) / first_D.median(-1).values).median()),
    )
