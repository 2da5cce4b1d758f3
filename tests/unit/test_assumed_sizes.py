"""Where a modelled message's size could not follow its content, the results say so."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from testbed.report.console import summary_table
from testbed.report.html import write_report
from testbed.run import prepare, run
from testbed.scenarios.load import build_scenario
from tests.unit.tiny_scenario import tiny


@pytest.mark.parametrize(
    ("policy", "assumed"),
    [
        ({"kind": "static", "split": 4, "codec": "int8"}, []),
        ({"kind": "static", "split": 4, "codec": "ts-tabq(delta=0.2)"}, ["ts-tabq(delta=0.2)"]),
        ({"kind": "static", "split": 0, "codec": "tabq"}, []),
    ],
)
def test_codecs_whose_size_follows_the_content_are_named(policy: object, assumed: list[str], tmp_path: Path) -> None:
    scenario = build_scenario(tiny(("policy", policy)), base=tmp_path)
    summary = run(prepare(scenario), tmp_path / "run").summary
    assert summary["assumed_sizes"] == assumed
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(summary_table(summary))
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    for shown in (console.export_text(), page):
        assert ("sizes of modelled messages" in shown) == bool(assumed)
