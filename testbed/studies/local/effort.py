"""What `testbed calibrate` times, and how often."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.models.shape import ModelShape

CODEC = "int8"  # of the messages; other codecs' times follow its law
PROMPTS = (8, 32, 96, 192, 320)
CONTEXTS = (12, 128, 300)  # at first: each timed step adds a token
CONTEXT_ENTRIES = (12, 128, 300, 512)
BATCHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long and how often passes are timed."""

    prefills: int = 7
    steps: int = 24


def cuts_of(shape: ModelShape) -> tuple[int, int]:
    """Two cuts, far apart: layers' own time shows in the difference."""
    early = max(1, shape.num_layers // 4)
    return early, shape.num_layers - early
