"""Evaluation data in local files, as rows with the columns that the tasks' own data sets on the hub have.

Layout of the folder: ``hellaswag/hellaswag_val_full.txt.bz2``, ``mcq/`` (JSON Lines of MosaicML's gauntlet),
``piqa/valid.jsonl`` and ``valid-labels.lst``, ``wikitext2/test.txt``. docs/eval.md says where rows differ from the
hub's, since some of these files hold less than their originals.
"""

from __future__ import annotations

import bz2
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from testbed.core.errors import ScenarioError

Row = dict[str, Any]
RowT = TypeVar("RowT")
_LINES_PER_ITEM = 6  # HellaSwag's text form: context, label, four endings
_PAGE_TITLE = re.compile(r" = [^=]+ = \n")
_FRAGMENT = re.compile(r"(?P<told>.*[.!?\"'])\s+(?P<begun>[^.!?A-Z][^.!?]*)", re.DOTALL)
_MCQ = "mcq/*/{}.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSplit:
    """One task's rows in a folder; `split` is the hub's name of what they are."""

    split: str
    read: Callable[[Path], list[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A plain item: a query, choices and which is right."""

    query: str
    choices: tuple[str, ...]
    gold: int


def read_local(task: str, folder: Path) -> list[Row]:
    """The rows of a task of the harness. Raises ScenarioError for files that are absent or not what they should be."""
    return _attempt(LOCAL[task].read, folder, task)


def read_plain(task: str, folder: Path) -> list[Choice]:
    """The items of a plain task. Raises ScenarioError as `read_local` does."""
    return _attempt(_plain_hellaswag if task == "hellaswag" else _plain_mcq(task), folder, task)


def _attempt(read: Callable[[Path], list[RowT]], folder: Path, task: str) -> list[RowT]:
    try:
        found = read(folder)
    except (KeyError, ValueError, IndexError, EOFError, TypeError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise ScenarioError(f"can't read the data of {task}: {reason}", file=folder) from error
    if not found:
        raise ScenarioError(f"holds no item of {task}", file=folder)
    return found


def _hellaswag_lines(folder: Path) -> Iterator[Sequence[str]]:
    path = _one_file(folder, "hellaswag/*.txt.bz2")
    lines = bz2.decompress(path.read_bytes()).decode("utf-8").split("\n")
    for start in range(0, len(lines) - _LINES_PER_ITEM + 1, _LINES_PER_ITEM):
        yield lines[start : start + _LINES_PER_ITEM]


def _hellaswag(folder: Path) -> list[Row]:
    """The text form joins the hub's ctx_a and ctx_b; an unfinished last sentence is taken for ctx_b."""
    rows = []
    for context, label, *endings in _hellaswag_lines(folder):
        activity, _, told = context.partition(": ")
        parts = _FRAGMENT.fullmatch(told)
        ctx_a, ctx_b = (parts["told"], parts["begun"]) if parts else (told, "")
        int(label)
        rows.append(
            {"activity_label": activity, "ctx_a": ctx_a, "ctx_b": ctx_b, "endings": list(endings), "label": label}
        )
    return rows


def _arc(name: str) -> Callable[[Path], list[Row]]:
    def read(folder: Path) -> list[Row]:
        rows = []
        for item in _json_lines(_one_file(folder, _MCQ.format(name))):
            labels = [chr(ord("A") + index) for index in range(len(item["choices"]))]
            rows.append(
                {
                    "question": item["query"].removeprefix("Question: "),
                    "choices": {"text": item["choices"], "label": labels},
                    "answerKey": labels[item["gold"]],
                }
            )
        return rows

    return read


def _piqa(folder: Path) -> list[Row]:
    labels = _one_file(folder, "piqa/valid-labels.lst").read_text(encoding="utf-8").split()
    items = _json_lines(_one_file(folder, "piqa/valid.jsonl"))
    return [
        {"goal": item["goal"], "sol1": item["sol1"], "sol2": item["sol2"], "label": int(label)}
        for item, label in zip(items, labels, strict=True)
    ]


def _boolq(folder: Path) -> list[Row]:
    rows = []
    for item in _json_lines(_one_file(folder, _MCQ.format("boolq"))):
        passage, _, question = item["query"].removeprefix("Passage: ").rpartition("\nQuestion: ")
        rows.append({"passage": passage, "question": question.removesuffix("?"), "label": int(item["gold"])})
    return rows


def _winogrande(folder: Path) -> list[Row]:
    """The gap stands where the two contexts begin to differ, at the start of a word."""
    rows = []
    for item in _json_lines(_one_file(folder, _MCQ.format("winogrande"))):
        options = item["context_options"]
        differ = (index for index, (one, other) in enumerate(zip(*options, strict=False)) if one != other)
        shared = options[0][: next(differ, min(map(len, options)))]
        start = shared.rfind(" ") + 1
        rows.append(
            {
                "sentence": f"{shared[:start]}_ {item['continuation']}",
                "option1": options[0][start:],
                "option2": options[1][start:],
                "answer": str(item["gold"] + 1),
            }
        )
    return rows


def _wikitext(folder: Path) -> list[Row]:
    """A page for each title of the first level."""
    lines = _one_file(folder, "wikitext2/test.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    pages: list[str] = []
    for line in lines:
        if _PAGE_TITLE.fullmatch(line) or not pages:
            pages.append("")
        pages[-1] += line
    return [{"page": page} for page in pages if page.strip()]


def _plain_hellaswag(folder: Path) -> list[Choice]:
    return [
        Choice(query=context, choices=tuple(endings), gold=int(label))
        for context, label, *endings in _hellaswag_lines(folder)
    ]


def _plain_mcq(name: str) -> Callable[[Path], list[Choice]]:
    def read(folder: Path) -> list[Choice]:
        items = _json_lines(_one_file(folder, _MCQ.format(name)))
        return [Choice(query=item["query"], choices=tuple(item["choices"]), gold=item["gold"]) for item in items]

    return read


def _one_file(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise ScenarioError("the data folder lacks a file", file=folder, value=pattern)
    return found[0]


def _json_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


LOCAL: Mapping[str, LocalSplit] = MappingProxyType(
    {
        "hellaswag": LocalSplit(split="validation", read=_hellaswag),
        "arc_easy": LocalSplit(split="test", read=_arc("arc_easy")),
        "arc_challenge": LocalSplit(split="test", read=_arc("arc_challenge")),
        "piqa": LocalSplit(split="validation", read=_piqa),
        "boolq": LocalSplit(split="validation", read=_boolq),
        "winogrande": LocalSplit(split="validation", read=_winogrande),
        "wikitext": LocalSplit(split="test", read=_wikitext),
    }
)
PLAIN = ("hellaswag", "piqa", "arc_easy", "arc_challenge", "openbook_qa", "copa")
