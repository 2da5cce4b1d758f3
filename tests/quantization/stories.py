"""Stories of somebody else's, as token ids of somebody else's model, and a shard that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource
from testbed.models.tokenizer import load_tokenizer


def stories(source: ModelSource, data_dir: Path) -> list[list[int]]:
    """32 of TinyStories, up to 128 tokens each."""
    tokenizer = load_tokenizer(source, str(data_dir / "stories260K" / "tok512.model"))
    text = (data_dir / "tinystories" / "tinystories_2MiB.txt").read_text(encoding="utf-8")[:60_000]
    return [tokenizer.encode(story.strip())[:128] for story in text.split("<|endoftext|>")][:32]


def read(shard: Shard, texts: Sequence[Sequence[int]]) -> None:
    """Each text alone, in a session of its own."""
    for tokens in texts:
        shard.open(0)
        shard.forward([ShardInput(session=0, tokens=tokens)])
        shard.close(0)
