"""One thread, as in a shard host: the last bits of a product depend on it."""

from __future__ import annotations

import bz2
import json
from pathlib import Path

import pytest
import torch

from testbed.models.source import resolve
from testbed.models.tokenizer import load_tokenizer
from testbed.studies.evaluation.load import Cut, load_split
from testbed.studies.evaluation.split_model import SplitModel


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cut() -> Cut:
    """pebble, cut where the two sides differ in size."""
    source = resolve("pebble")
    return Cut(source=source, tokenizer=load_tokenizer(source), split=5)


@pytest.fixture(scope="session")
def raw(cut: Cut) -> SplitModel:
    return load_split(cut, None, "raw-float32", [])


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of the local layout with three items of each task."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "hellaswag").mkdir()
    lines = []
    for label in range(3):
        lines += [f"Cooking: A man stirs soup {label} times. he then", str(label)]
        lines += ["tastes it.", "[step] paints  it.", "eats the spoon, slowly.", "sings."]
    (folder / "hellaswag" / "val.txt.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    arc = [
        {"query": f"Question: What is wet at {n} degrees?", "choices": ["stone", "water", "warm sand"], "gold": n}
        for n in range(3)
    ]
    boolq = [
        {"query": f"Passage: Soup {n} is hot.\nIt is.\nQuestion: is soup hot?", "choices": ["no", "yes"], "gold": n % 2}
        for n in range(3)
    ]
    wino = [
        {
            "context_options": ["Sam saw Sandra since Sam", "Sam saw Sandra since Sandra"],
            "continuation": f"had {n} dogs.",
            "gold": n % 2,
        }
        for n in range(3)
    ]
    for name, items in {"arc_easy": arc, "arc_challenge": arc, "boolq": boolq, "winogrande": wino, "copa": arc}.items():
        (folder / "mcq" / "mixed").mkdir(parents=True, exist_ok=True)
        (folder / "mcq" / "mixed" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    (folder / "piqa").mkdir()
    goals = [{"goal": f"boil {n} eggs", "sol1": "use hot water ", "sol2": "use a red hat"} for n in range(3)]
    (folder / "piqa" / "valid.jsonl").write_text("\n".join(map(json.dumps, goals)), encoding="utf-8")
    (folder / "piqa" / "valid-labels.lst").write_text("0\n1\n0\n", encoding="utf-8")
    (folder / "wikitext2").mkdir()
    pages = [f" = Page {n} = \n \n The otter , {n} @,@ 000 years old . \n = = Part = = \n Gone . \n" for n in range(3)]
    (folder / "wikitext2" / "test.txt").write_text(" \n" + "".join(pages), encoding="utf-8")
    return folder
