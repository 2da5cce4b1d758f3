"""Local files as the tasks' rows: everything that is there, in the hub's columns."""

from __future__ import annotations

import bz2
import json
from pathlib import Path

import pytest

from testbed.core.errors import ScenarioError
from testbed.studies.evaluation.local_data import LOCAL, PLAIN, read_local, read_plain

# Sizes of the published splits.
COUNTS = {
    "hellaswag": 10_042,
    "arc_easy": 2_376,
    "arc_challenge": 1_172,
    "piqa": 1_838,
    "boolq": 3_270,
    "winogrande": 1_267,
    "wikitext": 62,
}
COLUMNS = {
    "hellaswag": {"activity_label", "ctx_a", "ctx_b", "endings", "label"},
    "arc_easy": {"question", "choices", "answerKey"},
    "arc_challenge": {"question", "choices", "answerKey"},
    "piqa": {"goal", "sol1", "sol2", "label"},
    "boolq": {"passage", "question", "label"},
    "winogrande": {"sentence", "option1", "option2", "answer"},
    "wikitext": {"page"},
}
ACTIVITYNET_ITEMS = 3_243  # HellaSwag's items from ActivityNet, which are the ones with a ctx_b


def test_every_published_item_is_read(data_dir):
    assert set(COUNTS) == set(LOCAL)
    for task, count in COUNTS.items():
        rows = read_local(task, data_dir)
        assert len(rows) == count, task
        assert all(set(row) == COLUMNS[task] for row in rows), task


def test_hellaswag_contexts_fall_apart_where_the_hub_s_do(data_dir):
    rows = read_local("hellaswag", data_dir)
    assert sum(bool(row["ctx_b"]) for row in rows) == ACTIVITYNET_ITEMS
    assert all(len(row["endings"]) == 4 and row["label"] in {"0", "1", "2", "3"} for row in rows)


def test_winogrande_options_give_back_the_files_contexts(data_dir):
    path = next(data_dir.glob("mcq/*/winogrande.jsonl"))
    items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for item, row in zip(items, read_local("winogrande", data_dir), strict=True):
        before, _, after = row["sentence"].partition("_")
        assert [before + row["option1"], before + row["option2"]] == item["context_options"]
        assert (after.strip(), int(row["answer"]) - 1) == (item["continuation"].strip(), item["gold"])


def test_wikitext_pages_are_the_whole_file(data_dir):
    text = (data_dir / "wikitext2" / "test.txt").read_text(encoding="utf-8")
    assert "".join(row["page"] for row in read_local("wikitext", data_dir)).strip() == text.strip()


def test_columns_hold_what_the_files_say(small_data):
    swag, wino, boolq = (read_local(task, small_data)[1] for task in ("hellaswag", "winogrande", "boolq"))
    assert (swag["activity_label"], swag["ctx_a"], swag["ctx_b"]) == ("Cooking", "A man stirs soup 1 times.", "he then")
    assert (wino["sentence"], wino["option1"], wino["option2"], wino["answer"]) == (
        "Sam saw Sandra since _ had 1 dogs.",
        "Sam",
        "Sandra",
        "2",
    )
    assert boolq == {"passage": "Soup 1 is hot.\nIt is.", "question": "is soup hot", "label": 1}
    assert read_local("arc_easy", small_data)[2]["answerKey"] == "C"
    assert [row["label"] for row in read_local("piqa", small_data)] == [0, 1, 0]
    assert [row["page"].split("\n")[0] for row in read_local("wikitext", small_data)] == [
        " ",
        " = Page 0 = ",
        " = Page 1 = ",
        " = Page 2 = ",
    ][1:]


def test_plain_items_are_the_files_own_words(small_data):
    assert read_plain("hellaswag", small_data)[0].query == "Cooking: A man stirs soup 0 times. he then"
    copa = read_plain("copa", small_data)[2]
    assert (copa.query, copa.gold) == ("Question: What is wet at 2 degrees?", 2)


@pytest.mark.parametrize("task", PLAIN)
def test_a_missing_file_is_named(task, tmp_path):
    with pytest.raises(ScenarioError, match=f"lacks a file.*{task}"):
        read_plain(task, tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"not bz2", bz2.compress(b""), bz2.compress(b"Cooking: x\nnine\na\nb\nc\nd"), bz2.compress(b"\xff\xfe" * 9)],
)
def test_a_broken_file_is_one_clear_error(content, tmp_path):
    (tmp_path / "hellaswag").mkdir()
    (tmp_path / "hellaswag" / "x.txt.bz2").write_bytes(content)
    with pytest.raises(ScenarioError, match="hellaswag"):
        read_local("hellaswag", tmp_path)


def test_rows_without_their_keys_are_one_clear_error(tmp_path):
    file: Path = tmp_path / "mcq" / "x" / "arc_easy.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text('{"query": "Question: Why?"}\n', encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"can.t read the data of arc_easy.*choices"):
        read_local("arc_easy", tmp_path)
