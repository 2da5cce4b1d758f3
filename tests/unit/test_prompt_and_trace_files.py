"""Files that a workload names: read as an editor shows them, refused with their line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from testbed.core.errors import ScenarioError
from testbed.run import prepare
from testbed.scenarios.load import build_scenario
from testbed.sim.files import read_id_prompts, read_text_prompts
from testbed.workloads.arrivals.trace import Trace
from testbed.workloads.trace_file import TraceRows, read_trace
from tests.unit.test_bad_input import refused
from tests.unit.tiny_scenario import call, tiny, write


def trace(file: Path, **changes: Any) -> Trace.Config:
    columns = {"time_column": "t", "prompt_column": "in", "output_column": "out", "time_unit": "ms"}
    return Trace.Config(kind="trace", file=str(file), **{**columns, **changes})


def rows(
    file: Path, *, unit: str = "ms", columns: tuple[str | None, ...] = ("in", "out"), limit: int | None = None
) -> TraceRows:
    return read_trace(str(file), time_column="t", time_unit=unit, columns=columns, limit=limit)


def test_a_trace_is_read_in_its_order_and_units(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "x,out,t,in\n,2,0.25,10\n\n,3,1.5,7\n,4,9,1\n")
    assert rows(file) == TraceRows(arrival_ns=[250_000, 1_500_000, 9_000_000], counts=[[10, 7, 1], [2, 3, 4]])
    assert rows(file, limit=2) == TraceRows(arrival_ns=[250_000, 1_500_000], counts=[[10, 7], [2, 3]])
    assert rows(file, columns=(None, "out")).counts == [None, [2, 3, 4]]


def test_dates_count_from_the_first_row_to_the_nanosecond(tmp_path: Path) -> None:
    dates = [
        "2023-12-31 23:59:59.9799600",
        "2024-01-01T00:00:00",
        "2024-01-01 00:00:00.0000000019",
        "2024-01-01 02:00:00.5+01:30",
    ]
    file = write(tmp_path / "t.csv", "\n".join(["t", *dates]))
    assert rows(file, unit="date", columns=()).arrival_ns == [0, 20_040_000, 20_040_001, 1_800_520_040_000]


def test_a_spreadsheets_byte_order_mark_and_line_ends_are_no_part_of_the_data(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b"\xef\xbb\xbft,in,out\r\n1,2,3\r\n")
    assert rows(file).arrival_ns == [1_000_000]
    file.write_bytes(b"\xef\xbb\xbfHello\r\n\r\nYou\r\n")
    assert read_text_prompts(str(file)) == ["Hello", "You"]


def test_only_line_ends_end_a_prompt(tmp_path: Path) -> None:
    file = write(tmp_path / "p.txt", "one\u2028still one\n  two  \n\n")
    assert read_text_prompts(str(file)) == ["one\u2028still one", "two"]
    file = write(tmp_path / "p.jsonl", '[1, 2]\n\n{"ids": [3], "note": "a\u2028b"}\n')
    assert read_id_prompts(str(file)) == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the trace is empty: a header row is expected"),
        ("t,in,out\n", "the trace has no rows"),
        ("time,in,out\n1,2,3\n", "the trace has no such column (got 't'); allowed: time, in, out; did you mean 'out'?"),
        ("t,inn,out\n1,2,3\n", "the trace has no such column (got 'in'); allowed: t, inn, out; did you mean 'inn'?"),
        ("t,in,out\n1,2,3\nsoon,2,3\n", "line 3: not a time (got 'soon'); allowed: a number, the unit is time_unit's"),
        ("t,in,out\n1,2,3\n\nnan,2,3\n", "line 4: not a time (got 'nan'); allowed: a number, the unit is time_unit's"),
        ("t,in,out\ninf,2,3\n", "line 2: not a time (got 'inf'); allowed: a number, the unit is time_unit's"),
        ("t,in,out\n-1,2,3\n", "line 2: a time can't be negative (got '-1')"),
        (
            "t,in,out\n1,2,3\n0.5,2,3\n",
            "line 3: the time is before that of the row above (got '0.5'); allowed: rows in the order of their times",
        ),
        (
            "t,in,out\n1,0,3\n",
            "line 2: not a number of tokens (got '0'); allowed: a whole number from 1 to 999999999",
        ),
        (
            "t,in,out\n1,2,9999999999\n",
            "line 2: not a number of tokens (got '9999999999'); allowed: a whole number from 1 to 999999999",
        ),
        (
            "t,in,out\n1,2,2.5\n",
            "line 2: not a number of tokens (got '2.5'); allowed: a whole number from 1 to 999999999",
        ),
        ("t,in,out\n1,2,3\n4,5\n", "line 3 has 2 columns, too few"),
        ('t,in,out\n1,2,"' + "3" * 200_000, "line 2 is not CSV: field larger than field limit (131072)"),
    ],
)
def test_a_malformed_trace_is_refused_with_its_line(
    text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "t.csv", text)
    arrivals = trace(Path("t.csv")).model_dump(mode="json", exclude_none=True)
    write(tmp_path / "case.yaml", tiny(("workload.arrivals", arrivals)))
    head, got, tail = expected.partition(" (got")
    assert refused("validate", "case.yaml") == f"case.yaml: workload.arrivals: {file}: {head}{got}{tail}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[1, 2", "line 2 is not JSON: Expecting ',' delimiter (got '[1, 2')"),
        ("[]", """line 2 is no prompt (got '[]'); allowed: [1, 2, 3] or {"ids": [1, 2, 3]}"""),
        ("7", """line 2 is no prompt (got '7'); allowed: [1, 2, 3] or {"ids": [1, 2, 3]}"""),
        ("[1.5]", """line 2 is no prompt (got '[1.5]'); allowed: [1, 2, 3] or {"ids": [1, 2, 3]}"""),
        ("[true]", """line 2 is no prompt (got '[true]'); allowed: [1, 2, 3] or {"ids": [1, 2, 3]}"""),
        ('{"id": [1]}', """line 2 is no prompt (got '{"id": [1]}'); allowed: [1, 2, 3] or {"ids": [1, 2, 3]}"""),
    ],
)
def test_a_malformed_prompt_is_refused_with_its_line(line: str, expected: str, tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", f"[1]\n{line}\n")
    with pytest.raises(ScenarioError) as caught:
        read_id_prompts(str(file))
    assert str(caught.value) == f"{file}: {expected}"


@pytest.mark.parametrize("name", ["p.jsonl", "p.txt"])
def test_a_file_without_prompts_a_missing_and_an_unreadable_one(name: str, tmp_path: Path) -> None:
    read = read_id_prompts if name == "p.jsonl" else read_text_prompts
    file = tmp_path / name
    with pytest.raises(ScenarioError, match=rf"{name}: no such file"):
        read(str(file))
    file.write_text("\n \n")
    with pytest.raises(ScenarioError, match=rf"{name}: the file has no prompt"):
        read(str(file))
    file.write_bytes(b"one\ntwo \xff\n")
    with pytest.raises(ScenarioError, match=rf"{name}: line 2 is not UTF-8 text"):
        read(str(file))
    with pytest.raises(ScenarioError, match="the file can't be read: Is a directory"):
        read(str(tmp_path))


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ({"ids": [[1], [2, 128_256]]}, "prompt 2 has an id outside the vocabulary (got 128256)"),
        ({"ids": [[-1]]}, "prompt 1 has an id outside the vocabulary (got -1)"),
        ({"ids": [[]]}, "prompt 1 is empty"),
    ],
)
def test_ids_outside_the_vocabulary(
    prompts: dict[str, Any], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "case.yaml", tiny(("workload.prompts", {"kind": "ids", **prompts})))
    allowed = "allowed: ids from 0 to 128255, at least one"
    assert refused("validate", "case.yaml") == f"case.yaml: workload.prompts: {expected}; {allowed}"


def test_texts_for_a_model_without_a_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "case.yaml", tiny(("workload.prompts", {"kind": "text", "texts": ["Hello"]})))
    line = refused("validate", "case.yaml")
    assert line.startswith("case.yaml: workload.prompts: model llama-3.2-1b has no tokenizer; allowed: ")


def test_a_groups_own_workload_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = {**tiny()["workload"], "arrivals": {"kind": "trace", "file": "no.csv", "time_column": "t"}}
    write(tmp_path / "case.yaml", tiny(("fleet.0.workload", own)))
    expected = f"case.yaml: fleet[0].workload.arrivals: {tmp_path}/no.csv: no such file"
    assert refused("validate", "case.yaml") == expected


def test_an_arrival_after_the_end_of_virtual_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", "t\n1\n1e12\n")
    arrivals = {"kind": "trace", "file": "t.csv", "time_column": "t"}
    write(tmp_path / "case.yaml", tiny(("workload.arrivals", arrivals)))
    assert refused("validate", "case.yaml") == (
        f"case.yaml: workload.arrivals: {tmp_path}/t.csv: line 3: the time is too late (got '1e12'); "
        "allowed: a time in the first 36500 d"
    )


def test_a_traces_columns_set_the_lengths(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", "t,in,out\n0,5,6\n1,7,8\n")
    arrivals = {"kind": "trace", "file": "t.csv", "time_column": "t", "prompt_column": "in", "output_column": "out"}
    prepared = prepare(build_scenario(tiny(("workload.arrivals", arrivals)), base=tmp_path))
    lengths = [(item.arrival_ns, item.num_prompt_tokens, item.max_output_tokens) for item in prepared.requests]
    assert lengths == [(0, 5, 6), (10**9, 7, 8)]


def write_model(folder: Path, **changes: Any) -> Path:
    config = {
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 32,
        "max_position_embeddings": 16,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_a_folder_without_weights_has_sizes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "mine")
    real = tiny(("model", "./mine"), ("policy.split", 1), ("fleet.0.compute", "real"))
    write(tmp_path / "case.yaml", real)
    said = refused("validate", "case.yaml")
    assert said.startswith("case.yaml: fleet[0].compute: model ")
    assert "has no weights to compute with (got 'real'); allowed: modelled, " in said


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda folder: (folder / "config.json").unlink(), "{folder}: no config.json in the model folder"),
        (
            lambda folder: (folder / "config.json").write_text("{'a': 1}"),
            "{folder}/config.json: broken JSON at line 1, column 2: ",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"\x99\x00\x00\x00\x00\x00\x00\x00{}"),
            "{folder}/model.safetensors: truncated or corrupt safetensors file: the header is longer than the file",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{]"),
            "{folder}/model.safetensors: corrupt safetensors header",
        ),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "mamba"}'),
            "{folder}/config.json: ",
        ),
    ],
)
def test_a_broken_model_folder_is_said_under_model(
    spoil: Any, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_model(tmp_path / "mine")
    spoil(folder)
    write(tmp_path / "case.yaml", tiny(("model", "./mine")))
    assert refused("validate", "case.yaml").startswith(f"case.yaml: model: {expected.format(folder=folder)}")


def test_an_unsupported_family_is_answered_with_the_supported_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "mine", model_type="lama")
    write(tmp_path / "case.yaml", tiny(("model", "./mine")))
    line = refused("validate", "case.yaml")
    assert "(got 'lama'); allowed: " in line
    assert "mistral" in line
    assert line.endswith("did you mean 'llama'?")


def test_a_model_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "case.yaml", tiny(("model", "./nowhere")))
    expected = f"case.yaml: model: no such model folder (got '{tmp_path}/nowhere')"
    assert refused("validate", "case.yaml") == expected


def test_a_real_request_beyond_the_models_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_model(tmp_path / "mine")
    names = ["model.layers.0.x", "model.layers.1.x", "model.embed_tokens.weight", "lm_head.weight"]
    save_file({name: np.zeros(1, np.float32) for name in names}, folder / "model.safetensors")
    real = [("model", "./mine"), ("policy.split", 1), ("fleet.0.compute", "real")]
    write(tmp_path / "fits.yaml", tiny(*real, ("workload.output_tokens.value", 8)))
    assert call("validate", "fits.yaml").code == 0
    write(tmp_path / "case.yaml", tiny(*real, ("workload.output_tokens.value", 9)))
    assert refused("validate", "case.yaml") == (
        "case.yaml: workload: prompt and output of request 0 are longer than the model's positions "
        "(got '8 + 9 tokens'); allowed: at most 16 tokens together"
    )


def test_a_tokenizer_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "case.yaml", tiny(("tokenizer", "tok.json")))
    assert refused("validate", "case.yaml") == (
        f"case.yaml: tokenizer: no such tokenizer file (got '{tmp_path}/tok.json')"
    )
