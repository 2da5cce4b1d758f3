"""Plain prompts of stories260K: the scores that came with the data, out of a split model."""

from __future__ import annotations

import pytest

from testbed.models.source import resolve
from testbed.models.tokenizer import load_tokenizer
from testbed.studies.evaluation.load import Cut, load_split
from testbed.studies.evaluation.tasks import Scoring, make_tasks

# acc and acc_norm that others measured on the unsplit model (../shared/data/README.md), to four digits.
REFERENCES = {
    "plain-copa": (None, 0.64, 0.58),
    "plain-piqa": (None, 0.5038, 0.4918),
    "plain-arc_easy": (None, 0.2508, 0.2618),
    "plain-hellaswag": (1000, 0.2720, 0.2510),
}


@pytest.mark.parametrize(
    "name", [task if task == "plain-copa" else pytest.param(task, marks=pytest.mark.slow) for task in REFERENCES]
)
def test_reference_scores_come_out_again(name, data_dir):
    source = resolve(str(data_dir / "stories260K" / "hf"))
    tokenizer = load_tokenizer(source, data_dir / "stories260K" / "tok512.model")
    model = load_split(Cut(source=source, tokenizer=tokenizer, split=2), None, "raw-float32", [])
    limit, acc, acc_norm = REFERENCES[name]
    (task,) = make_tasks([name], Scoring(tokenizer=tokenizer, limit=limit, data=data_dir))
    cell = task.run(model, lambda count: None)
    assert (round(cell["acc"], 4), round(cell["acc_norm"], 4)) == (acc, acc_norm)
