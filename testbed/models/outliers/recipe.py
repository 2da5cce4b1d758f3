"""What outliers to put into which model, and whether it can be done without changing what the model computes."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.core.errors import ModelError
from testbed.models.families import FAMILIES
from testbed.models.source import ModelSource

SUITED = ("llama", "mistral", "qwen2", "qwen3", "smollm3")  # two RMSNorms a layer, before attention and before the MLP
MAX_CONSTANT_SQUARES = 100.0  # beyond it float32 cancels too much of what the negative eps' restores


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """What to put in: `width` channels in all, the direction of the largest second moment at the cut `cut` as one of
    them, `massive` values in the first token, `constant` values in every token. `first_token` None: the model's BOS.
    """

    width: int = 1024
    cut: int
    massive: tuple[float, ...] = (400.0, -250.0)
    constant: tuple[float, ...] = ()
    first_token: int | None = None
    seed: int = 0


def middle_cut(source: ModelSource) -> int:
    """The cut in the middle of the layers: where second moments are measured unless another is named."""
    return max(1, source.shape.num_layers // 2)


def check(source: ModelSource, outliers: Outliers) -> None:
    """ModelError where the change would not be exact or there is nothing to write it from."""
    source.weights_folder()
    shape, channels = source.shape, len(outliers.massive) + len(outliers.constant)
    if shape.family not in SUITED:
        raise ModelError(
            "outliers that change no logit need RMSNorms of this layout", value=shape.family, allowed=SUITED
        )
    if outliers.width < shape.hidden_size + channels:
        least = f"at least {shape.hidden_size + channels} (hidden size and {channels} channels of their own)"
        raise ModelError("too narrow", path="width", value=outliers.width, allowed=least)
    if not 1 <= outliers.cut <= shape.num_layers - 1:
        raise ModelError("no cut", path="cut", value=outliers.cut, allowed=f"1 to {shape.num_layers - 1}")
    if 0.0 in outliers.massive:
        raise ModelError("a massive value is not 0", path="massive", value=list(outliers.massive))
    squares = sum(value**2 for value in outliers.constant)
    if squares > MAX_CONSTANT_SQUARES:
        limit = f"squares that add up to at most {MAX_CONSTANT_SQUARES:g}"
        raise ModelError("float32 would cancel", path="constant", value=list(outliers.constant), allowed=limit)
    if outliers.constant and FAMILIES[shape.family].qk_norm != "none":
        problem = "constant values need a negative epsilon, which the norms of queries and keys would share"
        raise ModelError(problem, path="constant", value=list(outliers.constant), allowed="none")
    if outliers.massive:
        first_token(source, outliers)


def first_token(source: ModelSource, outliers: Outliers) -> int:
    """The token that every sequence is to start with, and to hold nowhere else."""
    token = source.config.get("bos_token_id") if outliers.first_token is None else outliers.first_token
    if not isinstance(token, int) or not 0 <= token < source.shape.vocab_size:
        problem = "massive values need a token that every sequence starts with, and the model names no such BOS token"
        raise ModelError(problem, path="first_token", value=token, allowed=f"0 to {source.shape.vocab_size - 1}")
    return token
