"""A whole evaluation: rows in a folder, interrupted and continued, and what the table says of them."""

from __future__ import annotations

import csv
import json
import math
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from testbed.actors.memory import edge_demand
from testbed.actors.weight_plan import weight_laws
from testbed.cli import app
from testbed.core.errors import ScenarioError
from testbed.models.kv_format import KVFormat
from testbed.report.evaluation import evaluation_figures, evaluation_table, write_evaluation
from testbed.studies.evaluation.methods import chosen_methods, weights_of
from testbed.studies.evaluation.run import EVAL_FILE, Evaluation, read_evaluation, run_evaluation
from testbed.studies.evaluation.tasks import Scoring, make_tasks

TASKS = ("pronoun", "corpus")


class Watch:
    """Remembers what was begun; raises KeyboardInterrupt at one cell."""

    def __init__(self, stop_at: tuple[str, str] | None = None) -> None:
        self.begun: list[tuple[str, str]] = []
        self.advanced, self.expected = 0, 0
        self._stop_at = stop_at

    def begin(self, method: str, task: str, num_requests: int | None) -> None:
        if num_requests is None:
            return
        if (method, task) == self._stop_at:
            raise KeyboardInterrupt
        self.begun.append((method, task))
        self.expected += num_requests

    def advance(self, count: int) -> None:
        self.advanced += count


@pytest.fixture(scope="module")
def evaluation(cut):
    scoring = Scoring(tokenizer=cut.tokenizer, batch_size=4, limit=2)
    return Evaluation(
        cut=cut,
        scoring=scoring,
        methods=chosen_methods(["fp", "opsc-int4"]),
        tasks=make_tasks(TASKS, scoring),
        texts=["The otter's favourite food is plums. " * 30],
    )


@pytest.fixture(scope="module")
def finished(evaluation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluations") / "whole"
    watch = Watch()
    report = run_evaluation(evaluation, folder, watch)
    return folder, report, watch


def without_times(report):
    data = json.loads(json.dumps(report["rows"]))
    for row in data.values():
        for cell in row["tasks"].values():
            cell.pop("seconds")
    return data


def test_every_method_meets_every_task_and_every_text_is_counted(finished):
    folder, report, watch = finished
    assert watch.begun == [(method, task) for method in ("fp", "opsc-int4") for task in TASKS]
    assert watch.advanced == watch.expected
    assert report["complete"]
    assert read_evaluation(folder) == json.loads(json.dumps(report))
    assert report["environment"]["versions"]["torch"]


def test_an_interrupted_evaluation_keeps_its_cells_and_goes_on(evaluation, finished, tmp_path):
    folder = tmp_path / "broken-off"
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(evaluation, folder, Watch(stop_at=("opsc-int4", "corpus")))
    left = read_evaluation(folder)
    assert not left["complete"]
    assert [set(left["rows"][name]["tasks"]) for name in ("fp", "opsc-int4")] == [set(TASKS), {"pronoun"}]
    write_evaluation(left, folder)
    assert [row["complete"] for row in evaluation_figures(left)] == [True, False]
    assert "(incomplete)" in (folder / "table.md").read_text()
    watch = Watch()
    report = run_evaluation(evaluation, folder, watch)
    assert watch.begun == [("opsc-int4", "corpus")]
    assert without_times(report) == without_times(finished[1])


def test_a_folder_of_another_setting_is_refused(evaluation, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "copy")
    scoring = Scoring(tokenizer=evaluation.cut.tokenizer, batch_size=4, limit=3)
    other = Evaluation(
        cut=evaluation.cut,
        scoring=scoring,
        methods=evaluation.methods,
        tasks=evaluation.tasks,
        texts=evaluation.texts,
    )
    with pytest.raises(ScenarioError, match=r"limit: .*another setting \(got 3\); allowed: 2"):
        run_evaluation(other, tmp_path / "copy", Watch())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(ScenarioError, match="holds no evaluation"):
        run_evaluation(evaluation, tmp_path / "photos", Watch())


def test_bytes_and_memory_are_the_laws(evaluation, finished):
    fp, int4 = evaluation_figures(finished[1])
    width, shape = evaluation.cut.source.shape.hidden_size, evaluation.cut.source.shape
    assert fp["decode_bytes_per_token"] == 4 * width + 24
    assert int4["decode_bytes_per_token"] == width / 2 + 4 + 24
    assert 4 * width < fp["prefill_bytes_per_token"] < 4 * width + 24
    block = weights_of(evaluation.methods[1], shape, evaluation.texts)
    law, _ = weight_laws(block, 32)
    assert (
        int4["edge_bytes"]
        == edge_demand(shape, 5, shape.max_positions, law, KVFormat(bits=8)).total_bytes
        < fp["edge_bytes"]
    )
    assert int4["front_resident_bytes"] < fp["front_resident_bytes"]


def test_averages_and_paired_differences_are_the_textbook_s():
    def row(name, a, b):
        empty = {"messages": 1, "tokens": 2, "values": 8, "bytes": 10}
        cells = {
            task: {
                "num_items": len(right),
                "acc": np.mean([int(c) for c in right]),
                "acc_stderr": 0.1,
                "acc_interval_95": [0.2, 0.9],
                "right": right,
                "prefill": empty,
                "decode": empty,
            }
            for task, right in (("a", a), ("b", b))
        }
        return {
            "title": name,
            "codec": "c",
            "failed": None,
            "edge_bytes": 1000,
            "front_resident_bytes": 9,
            "tasks": cells,
        }

    report = {
        "complete": True,
        "asked": {"tasks": ["a", "b"], "methods": ["fp", "m"], "limit": 5, "seed": 1, "model": "x", "split": 1}
        | {"num_layers": 2, "dtype": "float32"},
        "rows": {"fp": row("fp", "11110", "1010"), "m": row("m", "11001", "1110")},
    }
    figures = evaluation_figures(report)[1]
    changes = ([0, 0, -1, -1, 1], [0, 1, 0, 0])
    assert figures["average_acc"] == pytest.approx((0.6 + 0.75) / 2)
    assert figures["average_acc_stderr"] == pytest.approx(0.1 / math.sqrt(2))
    assert figures["difference"] == pytest.approx((np.mean(changes[0]) + np.mean(changes[1])) / 2)
    errors = [np.std(one, ddof=1) / math.sqrt(len(one)) for one in changes]
    assert figures["difference_stderr"] == pytest.approx(math.hypot(*errors) / 2)
    assert figures["flip_rate"] == pytest.approx(4 / 9)
    assert (figures["prefill_bytes_per_token"], figures["prefill_bits_per_value"]) == (5.0, 10.0)


def test_the_files_hold_what_the_rows_say(finished, tmp_path):
    report = finished[1]
    written = write_evaluation(report, tmp_path)
    assert [path.name for path in written] == ["table.csv", "table.md", "accuracy.svg"]
    with written[0].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["fp", "opsc-int4"]
    for row in rows:
        cell = report["rows"][row["method"]]["tasks"]["pronoun"]
        assert float(row["pronoun.acc"]) == cell["acc"] == cell["right"].count("1") / 2
        low, high = (float(row[f"pronoun.acc_{end}_95"]) for end in ("low", "high"))
        assert low <= cell["acc"] <= high
        assert float(row["corpus.perplexity"]) == report["rows"][row["method"]]["tasks"]["corpus"]["perplexity"]
    lines = written[1].read_text(encoding="utf-8").splitlines()
    assert lines[2].startswith("| full precision |")
    assert lines[3].startswith("| OPSC + uniform INT4, symmetric |")
    drawing = written[2].read_text(encoding="utf-8")
    assert "<svg" in drawing
    assert "OPSC + uniform INT4, symmetric" in drawing
    write_evaluation(report, tmp_path)
    assert written[2].read_text(encoding="utf-8") == drawing
    assert evaluation_table(report)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "pebbel"], "did you mean 'pebble'"),
        (["--model", "llama-2-7b"], "shape only"),
        (["--method", "opcs"], "did you mean 'opsc'"),
        (["--tasks", "fact"], "did you mean 'facts'"),
        (["--codec", "ts-tabc"], "did you mean 'ts-tabq'"),
        (["--codec", "ts-tabq(dleta=1)"], "did you mean 'delta'"),
        (["--split", "12"], "allowed: 1 to 11"),
        (["--weights", "rtn"], "a mapping is expected"),
        (["--weights", "{front_bits: 7}", "--tasks", "pronoun"], "front_bits"),
        (["--data", "nowhere"], "no such data folder"),
        (["--tasks", "plain-piqa"], "--data DIR"),
        (["--calibration", "nowhere.txt"], "can't be read"),
        (["--dtype", "float8"], "unknown dtype"),
        (["--device", "gpu"], "unknown device"),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = arguments if "--model" in arguments else ["--model", "pebble", *arguments]
    done = CliRunner().invoke(app, ["eval", *given])
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not any(tmp_path.rglob(EVAL_FILE))


def test_the_command_prints_its_rows_and_where_they_are(tmp_path):
    arguments = ["eval", "--model", "pebble", "--methods", "fp,opsc-int4", "--tasks", "pronoun", "--limit", "2"]
    done = CliRunner().invoke(app, [*arguments, "--split", "6", "--output", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [row["method"] for row in told["rows"]] == ["fp", "opsc-int4"]
    again = CliRunner().invoke(app, [*arguments, "--split", "6", "--output", str(tmp_path / "out")])
    assert again.exit_code == 0, again.output
    assert "opsc-int4" in again.stdout
    assert "6 of 12" in again.stdout
