"""An evaluation: every method on every task, saved after each cell, continued where it was interrupted.

The folder holds `eval.json`: what was asked, where it ran, and a row for each method with a cell for each task. The
table, the CSV file and the plot are made of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from testbed.actors.kv import kv_laws
from testbed.actors.memory import edge_demand
from testbed.actors.weight_plan import check_saved, weight_laws
from testbed.codecs.framing import CodecError
from testbed.core.errors import ModelError, ScenarioError
from testbed.run_folder import environment
from testbed.scenarios.kv import KV
from testbed.scenarios.problems import validate
from testbed.scenarios.weights import Weights
from testbed.studies.evaluation.load import Cut, load_split
from testbed.studies.evaluation.methods import Method, weights_of
from testbed.studies.evaluation.split_model import SplitModel, Traffic
from testbed.studies.evaluation.tasks import Cell, Scoring, Task

EVAL_FILE = "eval.json"
_PROMPT_TOKENS, _NEW_TOKENS = 32, 8
_DTYPE_BITS = {"float32": 32, "bfloat16": 16, "float16": 16}
_MUST_AGREE = ("model", "split", "dtype", "limit", "seed", "batch_size", "data")


class Observer(Protocol):
    """What is told how far an evaluation is; a step without requests has no end that is known."""

    def begin(self, method: str, task: str, num_requests: int | None) -> None: ...

    def advance(self, count: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is evaluated; `texts` calibrate what needs calibration."""

    cut: Cut
    scoring: Scoring
    methods: Sequence[Method]
    tasks: Sequence[Task]
    texts: Sequence[str]

    def described(self) -> dict[str, Any]:
        """As JSON types."""
        scoring = self.scoring
        return {
            "model": self.cut.source.name,
            "split": self.cut.split,
            "num_layers": self.cut.source.shape.num_layers,
            "dtype": self.cut.dtype,
            "limit": scoring.limit,
            "seed": scoring.seed,
            "batch_size": scoring.batch_size,
            "data": None if scoring.data is None else "local files",
            "tasks": [task.name for task in self.tasks],
            "methods": [method.name for method in self.methods],
        }


def run_evaluation(evaluation: Evaluation, folder: Path, observer: Observer) -> dict[str, Any]:
    """All rows as JSON types; what the folder holds already is kept and not computed again.

    A method that fails on this model (values that can't be coded, say) is a row that says why. Raises ScenarioError
    before anything runs for settings that no model could have, and for a folder of another evaluation.
    """
    evaluation.cut.check()
    shape = evaluation.cut.source.shape
    blocks = [
        (weights_of(method, shape, evaluation.texts), validate(KV, dict(method.kv))) for method in evaluation.methods
    ]
    for block, _ in blocks:
        if block is not None:
            check_saved(block, evaluation.cut.source, evaluation.cut.dtype, [evaluation.cut.split])
    report = _opened(evaluation, folder)
    _save(report, folder)
    for method, (block, kv) in zip(evaluation.methods, blocks, strict=True):
        row = report["rows"].setdefault(method.name, _new_row(evaluation.cut, method, block, kv))
        missing = [task for task in evaluation.tasks if task.name not in row["tasks"]]
        if missing:
            row["failed"] = None
            try:
                observer.begin(method.name, "weights and codec", None)
                model = load_split(evaluation.cut, block, method.codec, evaluation.texts, kv=kv)
                row["codec"] = model.setting
                row["front_resident_bytes"] = model.front.resident_bytes()
                for task in missing:
                    observer.begin(method.name, task.name, task.num_requests)
                    row["tasks"][task.name] = _scored(model, task, evaluation, observer)
                    _save(report, folder)
            except (CodecError, ModelError) as error:
                row["failed"] = str(error)
        _save(report, folder)
    report["complete"] = True
    _save(report, folder)
    return report


def read_evaluation(folder: Path) -> dict[str, Any]:
    """What an evaluation left in a folder, finished or not. Raises ScenarioError where there is none."""
    file = folder / EVAL_FILE
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScenarioError(f"no evaluation to be read: {error}", file=file) from None
    return found


def _opened(evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    """The folder's report, ready for more rows."""
    asked = evaluation.described()
    if not (folder / EVAL_FILE).exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ScenarioError("exists and holds no evaluation", file=folder, allowed="another --output")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ScenarioError(f"can't be made: {error.strerror}", file=folder, allowed="another --output") from None
        return {"complete": False, "asked": asked, "environment": environment(), "rows": {}}
    report = read_evaluation(folder)
    for key in _MUST_AGREE:
        if report["asked"].get(key) != asked[key]:
            raise ScenarioError(
                "the folder holds an evaluation with another setting",
                file=folder,
                path=key,
                value=asked[key],
                allowed=f"{report['asked'].get(key)}, or another --output",
            )
    named = {key: list(dict.fromkeys([*report["asked"][key], *asked[key]])) for key in ("tasks", "methods")}
    return {**report, "complete": False, "asked": {**asked, **named}, "environment": environment()}


def _save(report: Mapping[str, Any], folder: Path) -> None:
    """Whole or not at all: an interruption leaves the report before."""
    draft = folder / f"{EVAL_FILE}.new"
    draft.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    draft.replace(folder / EVAL_FILE)


def _new_row(cut: Cut, method: Method, block: Weights | None, kv: KV) -> dict[str, Any]:
    """A row without cells: what the method is and what the device must hold for it by the law."""
    shape, bits = cut.source.shape, _DTYPE_BITS[cut.dtype]
    front_law, _ = weight_laws(block, bits)
    kv_law, _ = kv_laws(kv, bits)
    demand = edge_demand(shape, cut.split, shape.max_positions, front_law, kv_law)
    return {
        "title": method.title,
        "weights": None if block is None else block.model_dump(exclude={"calibration"}),
        "kv": kv.model_dump(),
        "codec": method.codec,
        "edge_bytes": demand.total_bytes,
        "edge_weights_bytes": demand.resident_bytes,
        "edge_kv_bytes": demand.kv_bytes,
        "edge_tokens": shape.max_positions,
        "front_resident_bytes": None,
        "failed": None,
        "tasks": {},
    }


def _scored(model: SplitModel, task: Task, evaluation: Evaluation, observer: Observer) -> Cell:
    """One cell, with the messages that it took in both phases."""
    width = evaluation.cut.source.shape.hidden_size
    model.prefill, model.decode = Traffic(width), Traffic(width)
    started_ns = time.perf_counter_ns()
    cell = task.run(model, observer.advance)
    seconds = (time.perf_counter_ns() - started_ns) / 1e9
    for text in task.prompts:
        prompt = evaluation.cut.tokenizer.encode(text)[:_PROMPT_TOKENS]
        model.generate(prompt, max_new=_NEW_TOKENS)
    traffic = {"prefill": model.prefill.as_data(), "decode": model.decode.as_data()}
    return {**cell, **traffic, "seconds": round(seconds, 2)}
