"""What a row is scored on: the harness's tasks, pebble's own, and plain prompts from local files.

A task gives a cell: metrics as JSON types, for choices also `right`, a digit an item, so that rows can be compared item
by item. Which items a limit leaves is the same for every row.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from testbed.core.errors import ScenarioError, nearest_name
from testbed.models.likelihood import Pair, score_pairs
from testbed.models.pebble.evaluate import NUM_HELD_OUT_DOCUMENTS, SHIPPED, held_out_perplexity, wilson_interval
from testbed.models.pebble.prompts import prompts
from testbed.models.pebble.scoring import Scored, judge, score_choices
from testbed.models.pebble.tasks import KINDS, Item, build_items
from testbed.models.pebble.world import DEFAULT_SEED, build_world
from testbed.models.source import ModelSource
from testbed.models.tokenizer import Tokenizer
from testbed.studies.evaluation.local_data import LOCAL, PLAIN, Choice, read_plain
from testbed.studies.evaluation.split_model import SplitModel

Cell = dict[str, Any]
Observe = Callable[[int], None]
CORPUS = "corpus"
PEBBLE_TASKS = (*KINDS, CORPUS)
HARNESS_TASKS = tuple(LOCAL)
PLAIN_TASKS = tuple(f"plain-{name}" for name in PLAIN)
GROUPS: Mapping[str, Sequence[str]] = {"pebble": PEBBLE_TASKS, "harness": HARNESS_TASKS, "plain": PLAIN_TASKS}
ALL = "all"
NUM_PROMPTS = 4  # of a task, continued token by token for the size of decode messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """How every task is run: `limit` items each, the first ones or, with a seed, drawn at random."""

    tokenizer: Tokenizer
    batch_size: int = 16
    limit: int | None = None
    seed: int | None = None
    data: Path | None = None

    def chosen(self, name: str, total: int) -> list[int]:
        """The places of a task's items that are scored."""
        if self.limit is None or self.limit >= total:
            return list(range(total))
        if self.seed is None:
            return list(range(self.limit))
        return sorted(random.Random(f"{self.seed}/{name}").sample(range(total), self.limit))


class Task(Protocol):
    """Something to score; `num_requests` is how many texts it observes, `prompts` are some to continue."""

    name: str
    num_requests: int

    @property
    def prompts(self) -> Sequence[str]: ...

    def run(self, model: SplitModel, observe: Observe) -> Cell: ...


def task_names(names: Sequence[str], source: ModelSource) -> list[str]:
    """The tasks that names and groups stand for, in order and each once.

    `all` is what the model can be expected to understand: pebble's own tasks where the tokenizer is pebble's, else the
    harness's. Raises ScenarioError for a name that is none.
    """
    groups = {**GROUPS, ALL: PEBBLE_TASKS if speaks_pebble(source) else HARNESS_TASKS}
    listed = [task for name in names for task in groups.get(name, (name,))]
    known = [*groups, *PEBBLE_TASKS, *HARNESS_TASKS, *PLAIN_TASKS]
    unknown = next((name for name in listed if name not in known), None)
    if unknown is not None:
        raise ScenarioError("unknown task", value=unknown, allowed=known, nearest=nearest_name(unknown, known))
    return list(dict.fromkeys(listed))


def speaks_pebble(source: ModelSource) -> bool:
    """Whether the model's tokenizer is the shipped model's, byte for byte."""
    file = source.tokenizer_file
    return file is not None and file.read_bytes() == (SHIPPED / "tokenizer.json").read_bytes()


def make_tasks(names: Sequence[str], scoring: Scoring) -> list[Task]:
    """Tasks ready to run, in order.

    Raises ScenarioError where data or, for the harness's tasks, the harness itself is missing.
    """
    wanted = [name for name in names if name in HARNESS_TASKS]
    made: dict[str, Task] = dict(_harness_tasks(wanted, scoring)) if wanted else {}
    for name in names:
        if name in KINDS:
            made[name] = PebbleTask(name, scoring)
        elif name == CORPUS:
            made[name] = CorpusTask(scoring)
        elif name in PLAIN_TASKS:
            made[name] = PlainTask(name, scoring)
    return [made[name] for name in names]


def _harness_tasks(names: Sequence[str], scoring: Scoring) -> Mapping[str, Task]:
    try:
        from testbed.studies.evaluation import harness  # noqa: PLC0415 - an extra, and seconds to import
    except ModuleNotFoundError as error:
        raise ScenarioError(
            f"the task needs lm-evaluation-harness, which is not installed ({error.name} is missing)",
            value=names[0],
            allowed="pip install 'split-testbed[eval]', or tasks of the groups pebble and plain",
        ) from None
    return harness.load_tasks(names, scoring)


class PebbleTask:
    """One kind of pebble's own choice items, prompts and scoring as on its model card."""

    def __init__(self, kind: str, scoring: Scoring) -> None:
        items = [item for item in build_items(build_world(DEFAULT_SEED)) if item.kind == kind]
        self.name = kind
        self._items: list[Item] = [items[place] for place in scoring.chosen(kind, len(items))]
        self._scoring = scoring
        self.num_requests = sum(len(item.choices) for item in self._items)
        self.prompts = [item.context for item in self._items[:NUM_PROMPTS]]

    def run(self, model: SplitModel, observe: Observe) -> Cell:
        encode, batch_size = self._scoring.tokenizer.encode, self._scoring.batch_size
        scored = score_choices(model.logits, encode, self._items, batch_size=batch_size, observe=observe)
        return choice_cell(scored, [item.gold for item in self._items])


class CorpusTask:
    """Perplexity a token over fresh documents of pebble's corpus."""

    name = CORPUS

    def __init__(self, scoring: Scoring) -> None:
        self._scoring = scoring
        self.num_requests = min(scoring.limit or NUM_HELD_OUT_DOCUMENTS, NUM_HELD_OUT_DOCUMENTS)
        self.prompts = prompts(0, NUM_PROMPTS)

    def run(self, model: SplitModel, observe: Observe) -> Cell:
        found = held_out_perplexity(
            model.logits,
            self._scoring.tokenizer.encode,
            build_world(DEFAULT_SEED),
            num_documents=self.num_requests,
            batch_size=self._scoring.batch_size,
            observe=observe,
        )["all"]
        return {"num_items": self.num_requests, **found}


class PlainTask:
    """A choice after its query and a blank, BOS first, no template; acc_norm by the UTF-8 bytes of blank and choice."""

    def __init__(self, name: str, scoring: Scoring) -> None:
        self.name = name
        if scoring.data is None:
            raise ScenarioError("plain tasks read local files", value=name, allowed="--data DIR")
        items = read_plain(name.removeprefix("plain-"), scoring.data)
        self._items: list[Choice] = [items[place] for place in scoring.chosen(name, len(items))]
        self._scoring = scoring
        self.num_requests = sum(len(item.choices) for item in self._items)
        self.prompts = [item.query for item in self._items[:NUM_PROMPTS]]

    def run(self, model: SplitModel, observe: Observe) -> Cell:
        pairs = [self._pair(item.query, choice) for item in self._items for choice in item.choices]
        found = iter(
            score_pairs(
                model.logits,
                pairs,
                max_tokens=model.max_tokens,
                batch_size=self._scoring.batch_size,
                observe=observe,
            )
        )
        scored = [
            judge(item.choices, item.gold, [next(found).logprob for _ in item.choices], length=_num_bytes)
            for item in self._items
        ]
        return choice_cell(scored, [item.gold for item in self._items])

    def _pair(self, query: str, choice: str) -> Pair:
        encode = self._scoring.tokenizer.encode
        context = encode(query)
        return Pair(context, encode(f"{query} {choice}")[len(context) :])


def choice_cell(scored: Sequence[Scored], gold: Sequence[int]) -> Cell:
    """Accuracies of judged items."""
    right = [one.chosen == place for one, place in zip(scored, gold, strict=True)]
    right_by_length = [one.chosen_by_length == place for one, place in zip(scored, gold, strict=True)]
    return {
        **accuracy_cell(right),
        "acc_norm": sum(right_by_length) / len(right),
        "acc_norm_stderr": standard_error(sum(right_by_length), len(right)),
    }


def accuracy_cell(right: Sequence[bool]) -> Cell:
    """Acc with its standard error and its 95 % interval (Wilson), and which items are right."""
    num_right, total = sum(right), len(right)
    return {
        "num_items": total,
        "acc": num_right / total,
        "acc_stderr": standard_error(num_right, total),
        "acc_interval_95": list(wilson_interval(num_right, total)),
        "right": "".join("1" if one else "0" for one in right),
    }


def standard_error(num_right: int, total: int) -> float:
    """Of a mean of zeros and ones, from the sample's variance as the harness has it."""
    share = num_right / total
    return math.sqrt(share * (1 - share) / (total - 1)) if total > 1 else math.nan


def _num_bytes(choice: str) -> int:
    """Of a choice with the blank before it."""
    return 1 + len(choice.encode("utf-8"))
