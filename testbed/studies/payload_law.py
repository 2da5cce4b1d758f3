"""Fits a payload law: encodes real hidden states of a model and keeps how large the messages are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from testbed.actors.payload_law import HeldOut, MessageSizes, PayloadLaw
from testbed.codecs.agreed import agree
from testbed.codecs.framing import Codec, F32Array
from testbed.codecs.named import make_codec
from testbed.core.errors import ScenarioError
from testbed.models.pebble.corpus import documents
from testbed.models.pebble.world import build_world
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import ModelSource
from testbed.models.tokenizer import Tokenizer
from testbed.scenarios.codec_setting import read_setting, write_setting

CODECS = (
    "int4(entropy=rans)",
    "tabq",
    "tabq(delta=0.2)",
    "tabq(entropy=rans)",
    "tabq(entropy=rans,tables=agreed)",
    "tabq(entropy=rans,tables=channel)",
    "ts-tabq",
    "ts-tabq(delta=0.2)",
    "ts-tabq(per_row=2)",
    "ts-tabq(entropy=rans)",
    "ts-tabq(entropy=rans,per_row=2)",
    "ts-tabq(entropy=zstd)",
)
NUM_SEQUENCES = 32
MAX_TOKENS = 128  # of a sequence; longer prefills are extrapolated
NUM_QUANTILES = 11
_HELD_OUT_DOCUMENT = 10_000_000  # of pebble's corpus; its training stayed far below
_DECODE_STRIDE = 4  # neighbouring tokens are alike

Sizes = npt.NDArray[np.float64]
Observer = Callable[[str, int, int], None]  # (what is done, laws made, laws to make)


def fit(
    source: ModelSource,
    tokenizer: Tokenizer,
    *,
    codecs: Sequence[str],
    splits: Sequence[int],
    text: Path | None = None,
    num_sequences: int = NUM_SEQUENCES,
    observe: Observer = lambda _doing, _made, _all: None,
) -> PayloadLaw:
    """The law of every codec at every cut, on pebble's corpus or a text file of non-empty lines.

    A session's agreement, the fit and the error that is stated each have text of their own. Tokens are the text's, not
    the model's choices. Raises ScenarioError for text that is too short and for a split that is no cut of the model.
    """
    settings = [write_setting(read_setting(codec)) for codec in codecs]
    for split in splits:
        if not 0 < split < source.shape.num_layers:
            allowed = f"1 to {source.shape.num_layers - 1}"
            raise ScenarioError("no cut of the model", path="--split", value=split, allowed=allowed)
    sequences = _sequences(tokenizer, text, num_sequences, min(MAX_TOKENS, source.shape.max_positions))
    laws: list[MessageSizes] = []
    for split in splits:
        agreement, fitted, held_out = (_hidden_states(source, split, part) for part in sequences)
        for setting in settings:
            codec = make_codec(setting, agree(setting, np.concatenate(agreement)))
            laws.append(_law(codec, setting, split, fitted, held_out))
            observe("fitting", len(laws), len(splits) * len(settings))
    return PayloadLaw(
        model=source.name,
        hidden_size=source.shape.hidden_size,
        text="pebble's corpus" if text is None else text.name,
        sequences=num_sequences,
        laws=laws,
    )


def write_payload_law(law: PayloadLaw, file: Path) -> None:
    """As JSON, a line for each codec and cut."""
    data = law.model_dump(mode="json")
    lines = ",\n".join("  " + json.dumps(item, separators=(",", ":")) for item in data.pop("laws"))
    head = json.dumps(data, indent=1)
    file.write_text(f'{head[:-2]},\n "laws": [\n{lines}\n ]\n}}\n', encoding="utf-8")


def _law(
    codec: Codec, setting: str, split: int, fitted: Sequence[F32Array], held_out: Sequence[F32Array]
) -> MessageSizes:
    longest = min(map(len, (*fitted, *held_out)))
    tokens = [2**power for power in range(longest.bit_length())]
    ours, theirs = (_message_sizes(codec, states, tokens) for states in (fitted, held_out))
    quantiles = [_quantiles(sizes) for sizes in ours]
    errors = [_error(row, sizes) for row, sizes in zip(quantiles, theirs, strict=True)]
    return MessageSizes(
        codec=setting,
        split=split,
        tokens=tokens,
        prefill=quantiles[:-1],
        decode=quantiles[-1],
        held_out=HeldOut(prefill=round(float(np.mean(errors[:-1])), 4), decode=round(errors[-1], 4)),
    )


def _message_sizes(codec: Codec, states: Sequence[F32Array], tokens: Sequence[int]) -> list[Sizes]:
    """Sizes of prefills of each number of tokens, then of decode steps."""
    prefills = [[len(codec.encode(hidden_ND[:count])) for hidden_ND in states] for count in tokens]
    steps = [
        len(codec.encode(hidden_ND[at : at + 1]))
        for hidden_ND in states
        for at in range(1, len(hidden_ND), _DECODE_STRIDE)
    ]
    return [np.array(sizes, np.float64) for sizes in (*prefills, steps)]


def _quantiles(sizes: Sizes) -> list[int]:
    return [round(float(value)) for value in np.quantile(sizes, np.linspace(0, 1, NUM_QUANTILES))]


def _error(quantiles: Sequence[int], sizes: Sizes) -> float:
    """Area between two quantile functions over the mean: the least that one law must be moved to be the other."""
    u = (np.arange(200) + 0.5) / 200
    ours = np.interp(u, np.linspace(0, 1, len(quantiles)), quantiles)
    return float(np.abs(ours - np.quantile(sizes, u)).mean() / sizes.mean())


def _hidden_states(source: ModelSource, split: int, sequences: Sequence[Sequence[int]]) -> list[F32Array]:
    front, states = Shard(source, start=0, stop=split), []
    for number, tokens in enumerate(sequences):
        front.open(number)
        states.append(front.forward([ShardInput(session=number, tokens=tokens)])[0])
        front.close(number)
    return states


def _sequences(
    tokenizer: Tokenizer, text: Path | None, count: int, num_tokens: int
) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Three times `count` sequences of so many tokens each: for agreements, for the fit, and held out."""
    if text is None:
        world = build_world()
        corpus = _joined(tokenizer, (document.text for document in documents(world)), num_tokens)
        held_out = _joined(tokenizer, (document.text for document in documents(world, _HELD_OUT_DOCUMENT)), num_tokens)
        return list(islice(corpus, count)), list(islice(corpus, count)), list(islice(held_out, count))
    found = list(islice(_joined(tokenizer, _lines(text), num_tokens), 3 * count))
    if len(found) < 3 * count:
        allowed = f"{3 * count} sequences of {num_tokens} tokens"
        raise ScenarioError("the text is too short", file=text, value=f"{len(found)} sequences", allowed=allowed)
    return found[:count], found[count : 2 * count], found[2 * count :]


def _lines(text: Path) -> list[str]:
    try:
        return [line for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"can't be read: {error}", file=text) from None


def _joined(tokenizer: Tokenizer, texts: Iterable[str], num_tokens: int) -> Iterator[list[int]]:
    """Texts in a row until they have enough tokens, cut to exactly so many."""
    held: list[str] = []
    for text in texts:
        held.append(text)
        tokens = tokenizer.encode(" ".join(held))
        if len(tokens) >= num_tokens:
            yield tokens[:num_tokens]
            held = []
