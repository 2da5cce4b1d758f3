"""`testbed model outliers` as a user types it."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from testbed.cli import app

RUNNER = CliRunner()


def invoke(*words):
    return RUNNER.invoke(app, ["model", "outliers", *map(str, words)])


def test_it_says_what_it_did_and_where_it_holds(tmp_path):
    folder = tmp_path / "made"
    done = invoke("--model", "pebble", "--output", folder, "--width", "128")
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    assert "hidden size 96 -> 128" in text
    assert "start with token 1 and hold it nowhere else" in text
    assert "(within 7e-05)" in text
    assert "8 of 8 are the same" in text
    record = json.loads((folder / "outliers.json").read_text())
    assert record["massive_token"] == 1
    assert sorted(record["massive"].values()) == [-250.0, 400.0]
    assert record["proof"]["max_logit_difference"] <= 7e-5
    again = invoke("--model", "pebble", "--output", folder, "--width", "128")
    assert again.exit_code == 2
    assert "not empty" in again.output


def test_bad_input_is_one_line(tmp_path):
    for words in (["--massive", "big"], ["--width", "90"], ["--cut", "12"], ["--text", tmp_path / "absent.txt"]):
        done = invoke("--model", "pebble", "--output", tmp_path / "made", *words)
        assert done.exit_code == 2
        assert done.output.startswith("error: ")
        assert len(done.output.splitlines()) == 1
