"""Every row of the comparison is something that a scenario can say, and means the same there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from testbed.results.folder import read_run
from testbed.run import prepare, run
from testbed.scenarios.kv import KV
from testbed.scenarios.load import load_scenario
from testbed.studies.evaluation.load import load_split
from testbed.studies.evaluation.methods import METHODS, weights_of

TEXTS = ["The otter's favourite food is plums. " * 30]
PROMPT = "Mia plays a game: first"
NEW_TOKENS = 4


# One of each way of storing weights, caches and messages; the others take a second each, and run with the slow tests.
FIRST = {"fp", "smoothquant", "omniquant", "atom-kv4", "opsc-hadamard-int4", "opsc-ts-tabq", "opsc-ts-tabq-rans"}


@pytest.mark.parametrize(
    "name", [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_a_scenario_with_a_rows_parts_answers_what_the_row_answers(name, cut, tmp_path):
    """The same tokens and bytes out of one real device and one server as out of the evaluation's split model."""
    method = METHODS[name]
    if name == "omniquant":  # one short lesson in place of minutes
        method = replace(method, weights={**method.weights, "learning": {"epochs": 1, "num_samples": 1}})
    weights = weights_of(method, cut.source.shape, TEXTS)
    split = load_split(cut, weights, method.codec, TEXTS, kv=KV(**method.kv))
    ids = cut.tokenizer.encode(PROMPT)
    expected = split.generate(ids, max_new=NEW_TOKENS)
    sent = split.prefill.num_bytes + split.decode.num_bytes
    assert split.prefill.num_tokens == len(ids)
    (logits_nV,) = split.logits([ids])
    assert logits_nV.shape == (len(ids), cut.source.shape.vocab_size)
    assert int(logits_nV[-1].argmax()) == expected[0]

    data = {
        "name": "row",
        "model": "pebble",
        "seed": 1,
        "dtype": cut.dtype,
        "calibration": TEXTS,
        "weights": None if weights is None else weights.model_dump(mode="json"),
        "kv": dict(method.kv) or None,
        "policy": {"kind": "static", "split": cut.split, "codec": split.setting},
        "fleet": [{"name": "one", "device": "raspberry-pi-5", "count": 1, "link": "ideal", "compute": "real"}],
        "servers": [{"name": "cloud", "server": "cpu-server", "count": 1}],
        "workload": {
            "arrivals": {"kind": "times", "times": ["0 s"]},
            "prompts": {"kind": "text", "texts": [PROMPT]},
            "output_tokens": {"law": "fixed", "value": NEW_TOKENS},
            "ignore_eos": True,
        },
        "record": {"quality": False},
    }
    file = tmp_path / "row.yaml"
    file.write_text(yaml.safe_dump(data))
    run(prepare(load_scenario(file)), tmp_path / "run")
    tables = read_run(tmp_path / "run").tables
    assert tables.requests["tokens"].to_pylist() == [expected]
    assert [link["payload_bytes"] for link in tables.links.to_pylist() if link["direction"] == "up"] == [sent]
