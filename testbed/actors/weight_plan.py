"""From a scenario's `weights:` to what hosts do and what the laws count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from testbed.actors.weights import WeightLaw, layer_matrices
from testbed.core.errors import ModelError, ScenarioError
from testbed.models.fingerprint import weights_fingerprint
from testbed.models.pebble.corpus import training_texts
from testbed.models.shape import ModelShape
from testbed.models.source import ModelSource
from testbed.models.tokenizer import Tokenizer
from testbed.quantization.config import LEAST_TOKENS, Learning, WeightConfig
from testbed.quantization.formats import ActivationFormat, WeightFormat, format_of, input_format_of
from testbed.quantization.settings import first_difference, read_settings
from testbed.scenarios import weights as scenarios
from testbed.scenarios.weights import Weights

CORPUS = "pebble's training corpus"
CORPUS_TEXTS = 256  # of it, where weights are packed
AGREEMENT_TEXTS = 64  # where codecs agree


def weight_config(weights: Weights) -> WeightConfig:
    """How the weights are stored; the change point is set per shard, with the cut that it is made for."""
    learning = weights.learning or scenarios.Learning()
    return WeightConfig(
        method=weights.method,
        split=0,
        front=_layer_format(weights, weights.front_bits),
        back=_layer_format(weights, weights.back_bits),
        front_inputs=_inputs(weights, weights.front_activation_bits),
        back_inputs=_inputs(weights, weights.back_activation_bits),
        embedding=_table_format(weights, weights.embedding_bits),
        head=_table_format(weights, weights.head_bits),
        act_order=weights.act_order,
        alpha=weights.alpha,
        learning=Learning(
            epochs=learning.epochs,
            num_samples=learning.num_samples,
            clip_rate=learning.clip_rate,
            transform_rate=learning.transform_rate,
        ),
    )


def weight_laws(weights: Weights | None, plain_bits: float) -> tuple[WeightLaw, WeightLaw]:
    """The law of a front's weights and that of a back's."""
    if weights is None:
        return WeightLaw(plain_bits=plain_bits), WeightLaw(plain_bits=plain_bits)
    config = weight_config(weights)
    front, back = (
        WeightLaw(plain_bits=plain_bits, layers=layers, embedding=config.embedding, head=config.head)
        for layers in (config.front, config.back)
    )
    return front, back


def check_weights(weights: Weights, shape: ModelShape) -> None:
    """Raise ScenarioError for a group that is longer than a row of a matrix, or an input, that it is to divide."""
    config = weight_config(weights)
    columns = [columns for _, columns in layer_matrices(shape)]
    width = [shape.head_matrix_params // shape.vocab_size]
    _check_format(config.front, columns, "group_size")
    _check_format(config.back, columns, "group_size")
    for inputs, fmt in ((config.front_inputs, config.front), (config.back_inputs, config.back)):
        body = columns if fmt is None else [fmt.body_columns(number) for number in columns]
        _check_format(inputs, body, "activation_group_size")
    _check_format(config.embedding, width, "group_size")
    _check_format(config.head, width, "group_size")


def _check_format(fmt: WeightFormat | ActivationFormat | None, columns: Sequence[int], key: str) -> None:
    try:
        if fmt is not None:
            fmt.check(columns=columns)
    except ModelError as error:
        problem, value, allowed = error.problem, error.value, error.allowed
        raise ScenarioError(problem, path=f"weights.{error.path or key}", value=value, allowed=allowed) from None


def check_saved(weights: Weights, source: ModelSource, dtype: str, splits: Iterable[int]) -> None:
    """Raise ScenarioError unless the saved folder holds this model's weights, packed as the scenario says.

    `splits` are the cuts of all real shards: where front and back differ, the folder fits one of them only.
    """
    if weights.saved is None:
        return
    try:
        saved = read_settings(Path(weights.saved))
        if saved.origin is None or saved.origin.fingerprint != weights_fingerprint(source):
            told = "an unnamed model" if saved.origin is None else saved.origin.model
            raise ModelError("the saved weights are another model's", value=told, allowed=source.name)
        if saved.origin.dtype != dtype:
            raise ModelError("the saved weights were read in another dtype", value=saved.origin.dtype, allowed=dtype)
        config = saved.config
        difference = first_difference(config, weight_config(weights))
        if difference is not None:
            key, *values = difference
            value, wanted = ("null" if item is None else item for item in values)
            raise ModelError(f"the saved weights were made with another {key}", value=value, allowed=str(wanted))
        differs = (config.front, config.front_inputs) != (config.back, config.back_inputs)
        other = next((split for split in splits if differs and split != config.split), None)
        if other is not None:
            problem = f"the saved weights change from front to back at layer {config.split}"
            raise ModelError(problem, value=f"a cut at {other}", allowed=f"{config.split}")
    except ModelError as error:
        raise error.located(path="weights.saved") from None


def calibration_tokens(own: Sequence[str], tokenizer: Tokenizer, *, num_shipped: int) -> list[list[int]]:
    """Texts that shards read before they start, as token ids: the user's own, else so many of the shipped ones.

    Raises ScenarioError where the tokenizer can't write the shipped ones.
    """
    if own:
        return [tokenizer.encode(text) for text in own]
    found = []
    for text in training_texts(num_shipped):
        found.append(tokenizer.encode(text))
        if _letters(tokenizer.decode(found[-1])) != _letters(text):
            problem = f"the model's tokenizer can't write {CORPUS}, which is the default"
            raise ScenarioError(problem, path="calibration", value=text, allowed="texts of your own")
    return found


def _letters(text: str) -> str:
    """What tokenizers must keep; many change white space."""
    return "".join(text.split())


def calibration_sequences(
    tokens: Sequence[Sequence[int]], max_positions: int, *, path: str = "weights.calibration"
) -> tuple[tuple[int, ...], ...]:
    """Calibration texts as the model can take them: pieces of at most its positions.

    Raises ScenarioError where there is too little text to say anything.
    """
    num_tokens = sum(map(len, tokens))
    if num_tokens < LEAST_TOKENS:
        problem, allowed = "the calibration text is too short", f"at least {LEAST_TOKENS} tokens"
        raise ScenarioError(problem, path=path, value=f"{num_tokens} tokens", allowed=allowed)
    starts = [(text, start) for text in tokens for start in range(0, len(text), max_positions)]
    return tuple(tuple(text[start : start + max_positions]) for text, start in starts)


def _layer_format(weights: Weights, bits: int | None) -> WeightFormat | None:
    if bits is None:
        return None
    return format_of(
        weights.method,
        bits,
        group_size=weights.group_size,
        symmetric=weights.symmetric,
        outliers=weights.outlier_channels,
        clip=weights.weight_clip,
        transform=weights.learning is None or weights.learning.transform,
    )


def _inputs(weights: Weights, bits: int | None) -> ActivationFormat | None:
    if bits is None:
        return None
    return input_format_of(
        weights.method,
        bits,
        group_size=weights.activation_group_size,
        symmetric=weights.activation_symmetric,
        clip=weights.activation_clip,
    )


def _table_format(weights: Weights, bits: int | None) -> WeightFormat | None:
    """Token table and LM head: rounded to nearest under every method."""
    if bits is None:
        return None
    return format_of("rtn", bits, group_size=weights.group_size, symmetric=weights.symmetric)
