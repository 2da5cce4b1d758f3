"""Public measurements of LLM inference, read as passes that the cost model can predict.

Each row says what was run (a pass: a batch of `Work` on a model at some bits) and how fast it really was. Rows that
can't be predicted are kept apart with the reason. The data itself is not part of the project.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.core.work import Work
from testbed.models.families import shape_of
from testbed.models.known_shapes import KNOWN_CONFIGS
from testbed.models.shape import ModelShape

# llama.cpp, examples/quantize/README.md: Q4_K_M takes 4.84, 4.83 and 4.80 bits a weight in Llama 2 7B, 13B and 70B;
# smaller models with a tied head take up to 5.2. MLC LLM's q4f16_1 has one 16-bit scale per 32 weights.
QUANT_BITS: Mapping[str, float] = {"Q4_K_M": 4.85, "INT4": 4.5, "F16": 16.0}
ASSUMED_CONTEXT = 256  # tokens already in the cache where the measurement doesn't say (a short prompt, a short answer)


def _config(model_type: str, sizes: tuple[int, ...], **more: object) -> dict[str, object]:
    keys = (
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
        "vocab_size",
    )
    return {"model_type": model_type, **dict(zip(keys, sizes, strict=True)), **more}


# Sizes of models that only this check needs, from the config.json of the repositories named.
_EXTRA_CONFIGS: Mapping[str, dict[str, object]] = {
    # deepseek-ai/DeepSeek-R1-Distill-Qwen-14B
    "deepseek-r1-14b": _config("qwen2", (48, 5120, 40, 8, 13824, 152064)),
    # meta-llama/Llama-3.1-405B
    "llama-3.1-405b": _config("llama", (126, 16384, 128, 8, 53248, 128256)),
    # google/gemma-3-1b-it
    "gemma-3-1b": _config("gemma3_text", (26, 1152, 4, 1, 6912, 262144), head_dim=256, tie_word_embeddings=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measured pass, by tensor parallelism on `devices`; of kind layer one layer's, without its attention."""

    profile: str
    dataset: str
    label: str
    kind: str  # decode | prefill | layer
    shape: ModelShape
    bits: float
    works: tuple[Work, ...]
    seconds: float
    devices: int = 1

    @property
    def tokens(self) -> int:
        return sum(work.new_tokens for work in self.works)

    @property
    def tokens_per_s(self) -> float:
        """Of the pass; for one layer, tokens through that layer."""
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A measurement that the cost model can't be held to, and why."""

    dataset: str
    label: str
    reason: str


Row = Measurement | LeftOut


def model_shape(name: str) -> ModelShape:
    """The shape of a well-known model or of one that only this check needs."""
    config = _EXTRA_CONFIGS.get(name) or KNOWN_CONFIGS[name]
    return shape_of(name, config)


def csv_rows(path: Path) -> list[dict[str, str]]:
    """The file's rows; FileNotFoundError where it isn't there."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def decode_pass(shape: ModelShape, context: int, batch: int = 1) -> tuple[Work, ...]:
    """One decode step of the whole model for `batch` sequences with `context` tokens in the cache."""
    return (Work(start=0, stop=shape.num_layers, new_tokens=1, past_tokens=context),) * batch


def prefill_pass(shape: ModelShape, tokens: int, past: int = 0, batch: int = 1) -> tuple[Work, ...]:
    """The whole model over `tokens` new tokens a sequence after `past` in the cache."""
    return (Work(start=0, stop=shape.num_layers, new_tokens=tokens, past_tokens=past),) * batch
