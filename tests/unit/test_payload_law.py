"""Sizes of modelled messages drawn from a law of real ones: fitted well, keyed by request, and said in the results."""

import json

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from testbed.actors.payload_law import FILE_NAME, MessageSizes, PayloadLaw, read_payload_law
from testbed.cli import app
from testbed.codecs.named import make_codec
from testbed.core.errors import ScenarioError
from testbed.core.rng import Stream
from testbed.models.pebble.prompts import prompts
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import resolve
from testbed.models.tokenizer import load_tokenizer
from testbed.run import prepare, run
from testbed.scenarios.load import build_scenario
from testbed.studies.payload_law import fit, write_payload_law
from tests.unit.tiny_scenario import tiny

CODEC = "ts-tabq(delta=0.2)"
EXAMPLE = {
    "codec": CODEC,
    "split": 4,
    "tokens": [1, 4, 8],
    "prefill": [[100, 110, 120], [400, 420, 460], [800, 840, 900]],
    "decode": [90, 100, 130],
    "held_out": {"prefill": 0.02, "decode": 0.01},
}
POLICY = {"kind": "static", "split": 4, "codec": CODEC}


def law_file(folder, hidden_size, **changes):
    data = {"model": "m", "hidden_size": hidden_size, "text": "t", "sequences": 9, "laws": [{**EXAMPLE, **changes}]}
    (folder / "law.json").write_text(json.dumps(data))
    return folder / "law.json"


def sizes():
    return MessageSizes.model_validate(EXAMPLE)


@pytest.mark.parametrize(
    ("tokens", "past", "u", "size"),
    [
        (1, 0, 0.0, 100),
        (1, 0, 0.25, 105),
        (1, 7, 0.25, 95),  # a decode step
        (4, 0, 0.5, 420),
        (6, 0, 0.5, 630),  # half way between 420 and 840
        (6, 9, 0.5, 630),  # several tokens at once are a prefill, whatever came before
        (8, 0, 0.999999, 900),
        (18, 0, 0.5, 840 + 10 * 105),  # means 425 and 845 of the last two rows: 105 a token
    ],
)
def test_quantiles_are_followed_and_joined_by_lines(tokens, past, u, size):
    assert sizes().bytes_of(tokens, past, u) == size


def test_draws_have_the_law_and_are_keyed_by_request_and_step():
    stream = Stream.named(5, "payload.size")
    drawn = np.array([sizes().drawn(stream, request, lambda _: 10**6)(1, 3) for request in range(2000)])

    def cdf(value):
        return np.interp(value, [90, 100, 130], [0, 0.5, 1])

    assert stats.kstest(drawn + np.random.default_rng(0).uniform(-0.5, 0.5, 2000), cdf).pvalue > 0.01
    one = sizes().drawn(stream, 7, lambda _: 10**6)
    assert [one(1, past) for past in range(1, 6)] == [one(1, past) for past in range(1, 6)]
    assert len({one(1, past) for past in range(1, 30)}) > 5
    assert sizes().drawn(stream, 7, lambda num_tokens: 50 * num_tokens)(2, 0) == 100


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"decode": [100, 90, 130]}, "don't rise"),
        ({"decode": [90, 130]}, "different length"),
        ({"tokens": [1, 4]}, "one row for each"),
        ({"tokens": [2, 4, 8]}, "don't rise"),
        ({"split": 0}, "too small"),
        ({"extra": 1}, "unknown key"),
    ],
)
def test_a_broken_law_is_refused_with_its_place(tmp_path, changes, problem):
    with pytest.raises(ScenarioError, match=problem) as caught:
        read_payload_law(law_file(tmp_path, 64, **changes), 64)
    assert str(caught.value.path).startswith("laws[0]")
    assert caught.value.file


def test_a_file_that_is_no_law_of_this_model_is_refused_under_the_scenarios_key(tmp_path):
    (tmp_path / "text.json").write_text("{")
    law_file(tmp_path, 7)
    for name, problem in (("none.json", "can't be read"), ("text.json", "not JSON"), ("law.json", "hidden size")):
        scenario = build_scenario(tiny(("policy", POLICY), ("payload_law", name)), base=tmp_path)
        with pytest.raises(ScenarioError, match=problem) as caught:
            prepare(scenario)
        assert caught.value.path == "payload_law"


def test_a_scenario_draws_from_the_law_and_says_so(tmp_path):
    plain = prepare(build_scenario(tiny(("policy", POLICY)), base=tmp_path))
    file = law_file(tmp_path, plain.source.shape.hidden_size)
    named = build_scenario(tiny(("policy", POLICY), ("payload_law", file.name)), base=tmp_path)
    first, again = (run(prepare(named), tmp_path / name).summary for name in "ab")
    without = run(plain, tmp_path / "c").summary
    assert first["event_digest"] == again["event_digest"] != without["event_digest"]
    assert first["assumed_sizes"] == without["fitted_sizes"] == []
    expected = {"codec": CODEC, "split": 4, "prefill_error": 0.02, "decode_error": 0.01}
    assert first["fitted_sizes"] == [expected]
    assert without["assumed_sizes"] == [CODEC]
    other = build_scenario(tiny(("policy", {**POLICY, "codec": "tabq"}), ("payload_law", file.name)), base=tmp_path)
    assert run(prepare(other), tmp_path / "d").summary["assumed_sizes"] == ["tabq"]


def test_pebbles_own_law_holds_for_text_that_nobody_fitted_it_to():
    source = resolve("pebble")
    law = read_payload_law(source.folder / FILE_NAME, source.shape.hidden_size)
    assert {split for _, split in law.by_cut()} == set(range(1, source.shape.num_layers))
    split = 6
    shard, tokenizer = Shard(source, start=0, stop=split), load_tokenizer(source)
    for name in ("ts-tabq", "tabq(entropy=rans)"):
        codec, fitted = make_codec(name), law.by_cut()[name, split]
        real, drawn = np.zeros(2), np.zeros(2)
        for number, text in enumerate(prompts(11, 60)):
            shard.open(number)
            hidden = shard.forward([ShardInput(session=number, tokens=tokenizer.encode(text))])[0]
            shard.close(number)
            size_of = fitted.drawn(Stream.named(1, "payload.size"), number, lambda _: 10**9)
            real += len(codec.encode(hidden)), len(codec.encode(hidden[-1:]))
            drawn += size_of(len(hidden), 0), size_of(1, len(hidden))
        np.testing.assert_allclose(drawn, real, rtol=0.05)


def test_a_fit_reads_back_and_states_its_error(tmp_path):
    source = resolve("pebble")
    law = fit(source, load_tokenizer(source), codecs=["tabq", "int8(entropy=rans)"], splits=[2], num_sequences=6)
    write_payload_law(law, tmp_path / "law.json")
    assert read_payload_law(tmp_path / "law.json", source.shape.hidden_size) == law
    assert isinstance(law, PayloadLaw)
    for fitted in law.laws:
        assert fitted.tokens == [1, 2, 4, 8, 16, 32, 64, 128]
        assert 0 <= fitted.held_out.decode < 0.1
        assert 0 < fitted.held_out.prefill < 0.1
    with pytest.raises(ScenarioError, match="no cut"):
        fit(source, load_tokenizer(source), codecs=["tabq"], splits=[12], num_sequences=6)


def test_the_command_writes_a_law_and_refuses_text_that_is_too_short(tmp_path):
    (tmp_path / "short.txt").write_text("the owl sleeps .\n" * 30)
    arguments = ["study", "payload-law", "--model", "pebble", "--codec", "tabq(delta=0.3)", "--split", "1"]
    arguments += ["--sequences", "4", "--out", str(tmp_path / "law.json")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "1 laws of pebble" in done.output
    assert read_payload_law(tmp_path / "law.json", 96).laws[0].codec == "tabq(delta=0.3)"
    refused = CliRunner().invoke(app, [*arguments, "--text", str(tmp_path / "short.txt")])
    assert refused.exit_code == 2
    assert "too short" in refused.output
