"""Texts to calibrate on and to measure with: from a file, or of pebble's corpus where training never reached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from testbed.core.errors import ModelError
from testbed.models.pebble.corpus import FIRST_HELD_OUT_DOCUMENT, document
from testbed.models.pebble.world import build_world
from testbed.models.tokenizer import Tokenizer

SEPARATOR = "<|endoftext|>"


def held_out_texts(count: int, *, start: int = 0) -> tuple[str, ...]:
    """Held-out documents `start` onwards of pebble's corpus: deterministic, without end, one to four sentences each."""
    world = build_world()
    return tuple(document(world, FIRST_HELD_OUT_DOCUMENT + start + index).text for index in range(count))


def read_texts(path: Path) -> tuple[str, ...]:
    """The texts of a file, separated by ``<|endoftext|>`` where it has that, else by empty lines.

    Raises ModelError for a file that can't be read or holds no text.
    """
    try:
        whole = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"the text can't be read: {error}", file=path) from None
    parts = whole.split(SEPARATOR) if SEPARATOR in whole else whole.split("\n\n")
    texts = tuple(part.strip() for part in parts if part.strip())
    if not texts:
        raise ModelError("the file holds no text", file=path)
    return texts


def token_rows(tokenizer: Tokenizer, texts: Sequence[str], *, num_tokens: int, longest: int) -> list[list[int]]:
    """Texts as token ids until they hold `num_tokens`, none longer than `longest`; one of two tokens says nothing."""
    rows: list[list[int]] = []
    for text in texts:
        if sum(map(len, rows)) >= num_tokens:
            break
        ids = tokenizer.encode(text)[:longest]
        rows += [ids] if len(ids) > 2 else []  # noqa: PLR2004
    return rows
