"""Prints the equivalence table: ``python -m tests.equivalence.table`` from the repository root.

A row per family and variant: tokens and largest logit difference against the unsplit model's generate() over all cuts
at batch 1, and of ragged batches against the lone runs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch

from testbed.models.families import FAMILIES

from .test_batches import PROMPTS, run_churn
from .tiny_models import CASES, LAYERS, PROMPT, generate_alone, load_reference, pipeline, reference_generate, save_tiny

STEPS = 16
HEADINGS = ("family", "cuts", "tokens equal", "max |diff|", "batched: tokens", "max |diff|", "max |logit|")


def cells(case: str, folder: Path) -> tuple[str, ...]:
    """One row of the table, measured."""
    source = save_tiny(case, folder)
    tokens, logits = reference_generate(load_reference(source), PROMPT, STEPS)
    runs = [generate_alone(pipeline(source, [cut]), PROMPT, STEPS) for cut in range(LAYERS + 1)]
    same = sum(run[0] == tokens for run in runs)
    worst = max(float(np.abs(run[1] - logits).max()) for run in runs)
    shards = pipeline(source, [1])
    batched_tokens, batched_logits = run_churn(shards)
    length = len(batched_tokens[0])
    alone = {session: generate_alone(shards, prompt, length, session=99) for session, prompt in PROMPTS.items()}
    batched_same = sum(batched_tokens[session] == run[0] for session, run in alone.items())
    batched_worst = max(float(np.abs(batched_logits[session] - run[1]).max()) for session, run in alone.items())
    variant = case.partition(" ")[2]
    label = FAMILIES[source.shape.family].label + (f" ({variant})" if variant else "")
    return (
        label,
        f"0..{LAYERS}",
        f"{same}/{len(runs)}",
        f"{worst:.1e}" if worst else "0",
        f"{batched_same}/{len(alone)}",
        f"{batched_worst:.1e}",
        f"{np.abs(logits).max():.1f}",
    )


def main() -> None:
    """Measures every case and writes the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = [HEADINGS]
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(cells(case, Path(folder)))
    for row in rows:
        sys.stdout.write("| " + " | ".join(f"{cell:<26}" if i == 0 else cell for i, cell in enumerate(row)) + " |\n")


if __name__ == "__main__":
    main()
