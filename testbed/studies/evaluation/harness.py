"""lm-evaluation-harness around a split model: its tasks, prompts and metrics, our log-likelihoods.

Everything between a document and a pair of token id lists, and between log-likelihoods and a metric, is the harness's
code. With ``--data`` its data sets are replaced by local files; otherwise it reads them from the hub.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.evaluator import evaluate
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from testbed.core.errors import ModelError, ScenarioError
from testbed.models.likelihood import Likelihood, Pair, score_pairs
from testbed.models.tokenizer import Tokenizer
from testbed.studies.evaluation.local_data import LOCAL, read_local
from testbed.studies.evaluation.split_model import SplitModel
from testbed.studies.evaluation.tasks import NUM_PROMPTS, Cell, Observe, Scoring, Task, accuracy_cell

MAX_NEW_TOKENS = 256  # the harness's own default of a generation
_FOLDERS = ("arc", "hellaswag", "piqa", "super_glue/boolq", "winogrande", "wikitext")  # of its task definitions
_BOOTSTRAPS = 100  # any positive number: standard errors of means are closed forms
_SPLITS = ("training", "validation", "test")


class SplitLM(TemplateLM):  # type: ignore[misc]
    """The harness's language model: pairs of texts to log-likelihoods, through the cut."""

    def __init__(self, model: SplitModel, tokenizer: Tokenizer, *, batch_size: int, observe: Observe) -> None:
        super().__init__()
        self._model, self._tokenizer = model, tokenizer
        self._batch_size, self._observe = batch_size, observe

    @property
    def max_length(self) -> int:
        return self._model.max_tokens

    @property
    def eot_token_id(self) -> int | None:
        return self._tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """What a text without context comes after: BOS, else the end of text before it."""
        prefix = self._tokenizer.eos_id if self._tokenizer.bos_id is None else self._tokenizer.bos_id
        if prefix is None:
            raise ModelError("the tokenizer names neither BOS nor EOS, and a text without context needs one before it")
        return prefix

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        return self._tokenizer.encode(string, is_start=add_special_tokens is not False)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """The harness's own tokenisation; its progress bar stays off for ours."""
        del disable_tqdm
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Each whole text, in the harness's windows of the model's length."""
        del disable_tqdm
        windows = [self._windows(request.args[0]) for request in requests]
        found = iter(self._scores([pair for pairs in windows for pair in pairs]))
        return [sum(next(found).logprob for _ in pairs) for pairs in windows]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Greedy continuations, cut at the first stop sequence."""
        del disable_tqdm
        return [self._generated(*request.args) for request in requests]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[object, list[int], list[int]]], **_: object
    ) -> list[tuple[float, bool]]:
        return list(self._scores([Pair(context, text) for _, context, text in requests]))

    def _scores(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        return score_pairs(
            self._model.logits,
            pairs,
            max_tokens=self.max_length,
            batch_size=self._batch_size,
            observe=self._observe,
        )

    def _windows(self, text: str) -> list[Pair]:
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [Pair(*make_disjoint_window(window)) for window in windows]

    def _generated(self, context: str, settings: Mapping[str, Any]) -> str:
        kept = normalize_gen_kwargs(dict(settings), MAX_NEW_TOKENS)
        if kept.get("do_sample"):
            raise ScenarioError("generation through the cut is greedy", path="do_sample", value=True, allowed="false")
        max_new = min(int(kept["max_gen_toks"]), self.max_length - 1)
        stop = handle_stop_sequences(kept.get("until"), eos=None)
        prompt = self.tok_encode(context)[-(self.max_length - max_new) :]
        stop_ids = () if self.eot_token_id is None else (self.eot_token_id,)
        text = self._tokenizer.decode(self._model.generate(prompt, max_new=max_new, stop_ids=stop_ids))
        self._observe(1)
        return str(postprocess_generated_text(generation=text, stop=stop, think_end_token=None))


class HarnessTask:
    """One of the harness's tasks with its documents; `loaded` is the harness's own object."""

    def __init__(self, name: str, loaded: Any, scoring: Scoring) -> None:
        self.name = name
        self._loaded, self._scoring = loaded, scoring
        self._chosen = scoring.chosen(name, len(loaded.eval_docs))
        with _silence():
            loaded.build_all_requests(samples=self._chosen)
        self.num_requests = len(loaded.instances)
        self.prompts = [instance.args[0] for instance in loaded.instances if instance.idx == 0][:NUM_PROMPTS]

    def run(self, model: SplitModel, observe: Observe) -> Cell:
        adapter = SplitLM(model, self._scoring.tokenizer, batch_size=self._scoring.batch_size, observe=observe)
        with _silence():
            found = evaluate(
                lm=adapter,
                task_dict={"tasks": {self.name: self._loaded}},
                samples={self.name: self._chosen},
                bootstrap_iters=_BOOTSTRAPS,
            )
        named = {key.removesuffix(",none"): value for key, value in found["results"][self.name].items()}
        metrics = {key: float(value) for key, value in named.items() if _is_metric(key, value)}
        cell: Cell = {"num_items": len(self._chosen), **metrics}
        if "acc" in metrics:
            samples = sorted(found["samples"][self.name], key=lambda sample: sample["doc_id"])
            cell |= {**accuracy_cell([bool(sample["acc"]) for sample in samples]), **metrics}
        return cell


def _silence() -> AbstractContextManager[object]:
    """The harness draws bars of its own on stderr and has no switch for some."""
    return redirect_stderr(io.StringIO())


def load_tasks(names: Sequence[str], scoring: Scoring) -> Mapping[str, Task]:
    """The harness's own definitions; with `data` from local files, and then nothing touches the network.

    Raises ScenarioError for data that can't be had.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    root = Path(lm_eval.tasks.__file__).parent
    manager = TaskManager(include_path=[str(root / folder) for folder in _FOLDERS], include_defaults=False)
    return {name: HarnessTask(name, _loaded(manager, name, scoring.data), scoring) for name in names}


def _loaded(manager: TaskManager, name: str, data: Path | None) -> Any:
    if data is not None:
        # In a group, and only there, keys beside a task's name change its definition.
        group = {"group": "local", "task": [{"task": name, **_local(name, data)}]}
        return manager.load([group])["tasks"][name]
    try:
        return manager.load([name])["tasks"][name]
    except Exception as error:  # the hub's client and the network raise errors of every kind
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ScenarioError(
            f"the task's data is neither in the local cache nor to be had from the hub: {reason}",
            value=name,
            allowed="--data DIR with local files (docs/eval.md)",
        ) from None


def _local(name: str, data: Path) -> dict[str, Any]:
    """What replaces the data set in a task's definition."""
    local = LOCAL[name]
    rows = datasets.Dataset.from_list(read_local(name, data))
    splits = {f"{split}_split": split if split == local.split else None for split in _SPLITS}
    return {"custom_dataset": partial(_as_dataset, {local.split: rows}), **splits}


def _as_dataset(splits: Mapping[str, Any], **_: object) -> Mapping[str, Any]:
    return splits


def _is_metric(key: str, value: object) -> bool:
    return isinstance(value, int | float) and key not in {"sample_len", "sample_count"}
