"""The text that quantisers calibrate on where nobody names another: the first documents of pebble's training corpus.

What its tasks ask is held out of the corpus by construction, and the documents that perplexity is measured on have
numbers that training never reaches, so nothing here is ever asked.
"""

from __future__ import annotations

from testbed.models.pebble.corpus import document
from testbed.models.pebble.world import build_world

NAME = "pebble's training corpus"
NUM_DOCUMENTS = 256


def calibration_texts() -> tuple[str, ...]:
    """The same texts every time, a document each."""
    world = build_world()
    return tuple(document(world, index).text for index in range(NUM_DOCUMENTS))
