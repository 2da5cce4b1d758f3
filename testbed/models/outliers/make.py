"""Makes a variant of a Llama-family model whose hidden states have outliers and whose logits are the same [our design].

Small models lack what large ones have: channels that are large in every token, and a first token with massive values.
weights.py has the arithmetic; proof.py measures how far the logits really differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from testbed.core.errors import ModelError
from testbed.models.outliers.checkpoint import note_proof, write_variant
from testbed.models.outliers.proof import Proof, prove
from testbed.models.outliers.recipe import Outliers, check, first_token
from testbed.models.source import ModelSource
from testbed.models.texts import held_out_texts, read_texts, token_rows
from testbed.models.tokenizer import load_tokenizer

LOGIT_BOUND = 7e-5  # what rounding in float32 took on the models that this was designed on
LONGEST = 256
CALIBRATION_TOKENS = 4_000
PROOF_TOKENS = 2_000
_NUM_CORPUS_TEXTS = 400
_FIRST_CORPUS_TEXT = 100_000  # far from those that perplexity is measured on
_BYTES_OF_FLOAT32 = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A variant on disk, and what was measured of it; `num_without_first` texts do not start with the first token."""

    source: ModelSource
    variant: ModelSource
    outliers: Outliers
    proof: Proof
    num_texts: int
    num_without_first: int

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return {"folder": str(self.variant.folder), **self.proof.as_dict()}

    def told(self) -> list[str]:
        """What was done and how well it went, in plain words."""
        before, after, proof = self.source.shape, self.variant.shape, self.proof
        verdict = "within" if proof.max_logit_difference <= LOGIT_BOUND else "MORE THAN"
        megabytes = after.total_params * _BYTES_OF_FLOAT32 / 1e6
        return [
            f"{self.source.name}: hidden size {before.hidden_size} -> {after.hidden_size}, weights "
            f"{before.total_params:,} -> {after.total_params:,} ({megabytes:.0f} MB in float32)",
            f"in every token: 1 channel along the largest second moment at cut {self.outliers.cut}, the rest rotated",
            *self._told_of_values(),
            f"logits on {proof.num_tokens:,} held-out tokens, up to {proof.max_logit:.1f} large, differ by at most "
            f"{proof.max_logit_difference:.1e} in float32 ({verdict} {LOGIT_BOUND:.0e}) and "
            f"{proof.exact_logit_difference:.1e} in float64; float32 alone moves the original's by "
            f"{proof.own_rounding:.1e}",
            f"greedy continuations: {proof.num_equal_continuations} of {proof.num_continuations} are the same",
        ]

    def _told_of_values(self) -> list[str]:
        lines = []
        if self.outliers.massive:
            token, values = first_token(self.source, self.outliers), _listed(self.outliers.massive)
            lines.append(
                f"in token {token}: channels of {values}, 0 in all others; unchanged logits hold for sequences that "
                f"start with token {token} and hold it nowhere else"
            )
        if self.num_without_first:
            lines.append(
                f"WARNING: {self.num_without_first} of {self.num_texts} texts do not start with that token as this "
                "tokenizer encodes them; such sequences have no massive values at all"
            )
        if self.outliers.constant:
            eps = self.variant.config["rms_norm_eps"]
            lines.append(f"in every token: channels of {_listed(self.outliers.constant)}; rms_norm_eps is {eps:.4g}")
        return lines


def make_outliers(
    source: ModelSource,
    outliers: Outliers,
    folder: Path,
    *,
    text: Path | None = None,
    tokenizer_file: Path | None = None,
) -> Made:
    """Write the variant of a model into a new or empty folder and measure it.

    Text is pebble's corpus unless a file is given; of a file the first part calibrates and the rest is held out.
    Raises ModelError for a folder that holds something, a model or text that does not fit, logits that are not finite.
    """
    check(source, outliers)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError("the output folder is not empty", file=folder, allowed="a new or empty folder")
    torch.set_num_threads(1)  # the last bits, which are what is measured, must not depend on the core count
    tokenizer = load_tokenizer(source, tokenizer_file)
    longest = min(LONGEST, source.shape.max_positions)
    texts = held_out_texts(_NUM_CORPUS_TEXTS, start=_FIRST_CORPUS_TEXT) if text is None else read_texts(text)
    calibration = token_rows(tokenizer, texts[::2], num_tokens=CALIBRATION_TOKENS, longest=longest)
    held_out = token_rows(tokenizer, texts[1::2], num_tokens=PROOF_TOKENS, longest=longest)
    if not held_out:
        raise ModelError("the text is too short: every other part is held out", file=text, allowed="two texts or more")
    rows = [*calibration, *held_out]
    num_without = 0
    if outliers.massive:
        token = first_token(source, outliers)
        num_without = sum(ids[0] != token for ids in rows)
        held_out = [ids for ids in held_out if token not in ids[1:]]
    variant, widening = write_variant(source, outliers, folder, calibration, tokenizer_file)
    proof = prove(source, variant, widening, held_out)
    note_proof(folder, proof.as_dict())
    return Made(
        source=source,
        variant=variant,
        outliers=outliers,
        proof=proof,
        num_texts=len(rows),
        num_without_first=num_without,
    )


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
