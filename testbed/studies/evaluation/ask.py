"""From what a user asks on the command line to an evaluation that can run: everything is checked, nothing computed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from testbed.actors.weight_plan import CORPUS_TEXTS
from testbed.core.errors import ScenarioError, nearest_name
from testbed.models.pebble.corpus import training_texts
from testbed.models.shard import DTYPES
from testbed.models.source import resolve
from testbed.models.texts import read_texts
from testbed.models.tokenizer import load_tokenizer
from testbed.studies.evaluation.load import Cut
from testbed.studies.evaluation.methods import Method, chosen_methods
from testbed.studies.evaluation.run import Evaluation
from testbed.studies.evaluation.tasks import Scoring, make_tasks, task_names

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What was asked, as it was written."""

    model: str
    methods: Sequence[str]
    split: int | None
    tasks: Sequence[str]
    codecs: Sequence[str]
    weights: str | None
    kv: str | None
    limit: int | None
    seed: int | None
    data: Path | None
    tokenizer: str | None
    calibration: Path | None
    dtype: str
    batch_size: int
    device: str


def prepare(question: Question) -> Evaluation:
    """The evaluation that a question stands for.

    Raises ScenarioError, with the nearest name, for whatever does not exist or can't be had.
    """
    methods = _methods(question)
    _check_name(question.dtype, tuple(DTYPES), "dtype")
    _check_name(question.device, DEVICES, "device")
    source = resolve(question.model)
    source.weights_folder()
    names = task_names(question.tasks, source)
    if question.data is not None:
        if not question.data.is_dir():
            raise ScenarioError("no such data folder", path="--data", value=str(question.data))
        # Before the harness is imported: with local files nothing may wait for the network.
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    split = source.shape.num_layers // 2 if question.split is None else question.split
    cut = Cut(
        source=source,
        tokenizer=load_tokenizer(source, question.tokenizer),
        split=split,
        dtype=question.dtype,
        device=question.device,
    )
    cut.check()
    scoring = Scoring(
        tokenizer=cut.tokenizer,
        batch_size=question.batch_size,
        limit=question.limit,
        seed=question.seed,
        data=question.data,
    )
    texts = training_texts(CORPUS_TEXTS) if question.calibration is None else read_texts(question.calibration)
    return Evaluation(cut=cut, scoring=scoring, methods=methods, tasks=make_tasks(names, scoring), texts=texts)


def _methods(question: Question) -> list[Method]:
    weights = None if question.weights is None else _mapping(question.weights, "--weights")
    kv = None if question.kv is None else _mapping(question.kv, "--kv")
    codecs: Sequence[str | None] = question.codecs or (None,)
    found = [row for codec in codecs for row in chosen_methods(question.methods, weights=weights, kv=kv, codec=codec)]
    return list({row.name: row for row in found}.values())


def _mapping(text: str, option: str) -> Mapping[str, Any]:
    """A block as YAML in one argument: "{method: gptq, front_bits: 4, back_bits: 4}"."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScenarioError(f"not YAML: {str(error).splitlines()[0]}", path=option, value=text) from None
    if not isinstance(data, dict):
        raise ScenarioError("a mapping is expected", path=option, value=text, allowed="{front_bits: 4, ...}")
    return data


def _check_name(value: str, allowed: Sequence[str], path: str) -> None:
    if value not in allowed:
        nearest = nearest_name(value, allowed)
        raise ScenarioError(f"unknown {path}", path=f"--{path}", value=value, allowed=allowed, nearest=nearest)
