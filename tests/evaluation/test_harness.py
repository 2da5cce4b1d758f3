"""The adapter against the harness's own model: the same requests, documents and metrics, to the last bit."""

from __future__ import annotations

import sys

import pytest

from testbed.core.errors import ScenarioError
from testbed.studies.evaluation import harness
from testbed.studies.evaluation.tasks import HARNESS_TASKS, Scoring, make_tasks

evaluator = pytest.importorskip("lm_eval.evaluator", reason="needs the extra 'eval'")
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

LONG = "The old otter told a story about a game. " * 60
PAIRS = (
    ("Mia plays a game: first", " she hides"),
    ("Mia plays a game: first ", "she hides"),
    ("", "A text without context"),
    ("Is it red? Answer:", " yes"),
    ("Is it red? Answer:", " no"),
    (LONG, " and then it slept."),
    ("One", LONG[:900]),
)


@pytest.fixture(scope="module")
def theirs(cut):
    return HFLM(pretrained=str(cut.source.folder), device="cpu", batch_size=1)


@pytest.fixture(scope="module")
def ours(raw, cut):
    return harness.SplitLM(raw, cut.tokenizer, batch_size=1, observe=lambda count: None)


def requests(kind, arguments):
    return [Instance(request_type=kind, doc={}, arguments=one, idx=0) for one in arguments]


def test_sizes_and_special_tokens_are_the_harness_s(ours, theirs):
    assert ours.max_length == theirs.max_length
    assert ours.prefix_token_id == theirs.prefix_token_id
    assert ours.eot_token_id == theirs.eot_token_id


def test_log_likelihoods_are_the_harness_s_bit_for_bit(ours, theirs):
    asked = requests("loglikelihood", PAIRS)
    assert len(ours.tok_encode(LONG)) > ours.max_length
    assert ours.loglikelihood(asked) == theirs.loglikelihood(asked, disable_tqdm=True)


@pytest.mark.parametrize("flag", [None, True, False])
def test_special_tokens_stand_before_a_text_when_the_harness_wants_them(ours, theirs, flag):
    """The harness takes an empty context's continuation without them: after BOS, no second one."""
    found = ours.tok_encode("she hides", add_special_tokens=flag)
    assert found == theirs.tok_encode("she hides", add_special_tokens=flag)
    assert (found[0] == ours.prefix_token_id) == (flag is not False)


def test_batches_change_rounding_only(raw, cut, theirs):
    batched = harness.SplitLM(raw, cut.tokenizer, batch_size=4, observe=lambda count: None)
    found = batched.loglikelihood(requests("loglikelihood", PAIRS))
    expected = theirs.loglikelihood(requests("loglikelihood", PAIRS), disable_tqdm=True)
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], rel=1e-5)
    assert [one[1] for one in found] == [one[1] for one in expected]


def test_rolling_log_likelihoods_are_the_harness_s_bit_for_bit(ours, theirs):
    asked = requests("loglikelihood_rolling", [(LONG,), ("A short one.",)])
    assert ours.loglikelihood_rolling(asked) == theirs.loglikelihood_rolling(asked, disable_tqdm=True)


def test_generations_are_the_harness_s(ours, theirs):
    settings = {"until": ["."], "max_gen_toks": 24, "do_sample": False}
    asked = requests("generate_until", [("Mia plays a game: first", settings), (LONG, settings)])
    assert ours.generate_until(asked) == theirs.generate_until(asked, disable_tqdm=True)


def test_sampled_generation_is_refused(ours):
    with pytest.raises(ScenarioError, match="greedy"):
        ours.generate_until(requests("generate_until", [("A", {"until": ["."], "do_sample": True})]))


METRICS = ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr", "word_perplexity", "byte_perplexity", "bits_per_byte")


@pytest.mark.parametrize("data", ["small_data", pytest.param("data_dir", marks=pytest.mark.slow)])
def test_every_task_gives_the_harness_s_own_numbers(raw, cut, theirs, data, request):
    """HFLM through the harness's evaluator on the same documents: metrics and standard errors are equal."""
    folder = request.getfixturevalue(data)
    scoring = Scoring(tokenizer=cut.tokenizer, batch_size=1, limit=2, seed=4, data=folder)
    tasks = make_tasks(HARNESS_TASKS, scoring)
    assert len(tasks) == 7
    for task in tasks:
        cell = task.run(raw, lambda count: None)
        expected = evaluator.evaluate(
            lm=theirs,
            task_dict={"tasks": {task.name: task._loaded}},
            samples={task.name: task._chosen},
            bootstrap_iters=100,
        )["results"][task.name]
        for metric in METRICS:
            assert cell.get(metric) == expected.get(f"{metric},none"), (task.name, metric)
        assert cell["num_items"] == 2
        assert ("acc" in cell) == ("right" in cell) == (task.name != "wikitext")


def test_rows_can_be_run_again_on_the_same_documents(raw, cut, small_data):
    (task,) = make_tasks(["winogrande"], Scoring(tokenizer=cut.tokenizer, batch_size=4, data=small_data))
    assert task.run(raw, lambda count: None) == task.run(raw, lambda count: None)


def test_without_the_extra_the_error_names_it(cut, monkeypatch):
    monkeypatch.delitem(sys.modules, "testbed.studies.evaluation.harness")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    monkeypatch.delattr("testbed.studies.evaluation.harness", raising=False)
    with pytest.raises(ScenarioError, match=r"pip install 'split-testbed\[eval\]'"):
        make_tasks(["piqa"], Scoring(tokenizer=cut.tokenizer))


def test_data_that_is_nowhere_is_an_error_that_names_the_option(cut, monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(ScenarioError, match=r"no network.*--data DIR"):
        make_tasks(["piqa"], Scoring(tokenizer=cut.tokenizer))
