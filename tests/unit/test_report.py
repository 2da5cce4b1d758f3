"""The report is one file made from the run folder, says what is so, and lets nobody's text become markup."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from testbed.core.errors import ScenarioError
from testbed.core.events import HOPS, Outcome
from testbed.report.console import summary_table
from testbed.report.html import write_report
from testbed.report.series import NUM_SLICES, load, traffic
from testbed.report.style import DASHES, HOP_COLOURS, NUM_SERIES
from testbed.report.words import HOP_WORDS
from testbed.results import files
from testbed.results.folder import batches, read_tables
from tests.unit.fake_runs import FakeGroup, FakeRun, fake_run, write_run

HOSTILE = "<script>alert('x')</script> & \"$\\frac{1}{2}$\""
VOID = {"meta", "br", "hr", "img", "input", "link"}
EDGE = (FakeGroup(name="edge", kind="pi", count=2, edge_only=True, real=True),)
ALL_OOM = (FakeGroup(name="small", kind="pi", count=2, outcome=Outcome.OOM),)
MANY = tuple(FakeGroup(name=f"g{k}", kind="pi", count=1, slowness=0.2 + k * k) for k in range(9))

RUNS: dict[str, Callable[[], FakeRun]] = {
    "normal": lambda: fake_run(num_servers=2),
    "interrupted": lambda: fake_run(cut_at_s=3.0),
    "nothing completed": lambda: fake_run(ALL_OOM),
    "edge only": lambda: fake_run(EDGE, num_servers=0),
    "nothing happened": lambda: fake_run(EDGE, num_servers=1, cut_at_s=0.0),
    "many groups and servers": lambda: fake_run(MANY, num_servers=8),
    "hostile names": lambda: fake_run((FakeGroup(name=HOSTILE, kind=HOSTILE, count=2, real=True),), text=HOSTILE),
}


class _Reader(HTMLParser):
    """Tags must nest; collects elements, ids and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _read(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader


def _shown(text: str) -> str:
    return " ".join(_read(text).text).replace("\u00a0", " ")


Page = Callable[[str], tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The report and the summary of one of RUNS, made once."""

    @cache
    def made(kind: str) -> tuple[str, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("run")
        summary = write_run(folder, RUNS[kind](), name=HOSTILE if kind == "hostile names" else kind)
        return write_report(folder).read_text(encoding="utf-8"), summary

    return made


@pytest.mark.parametrize("kind", RUNS)
def test_the_page_is_well_formed_and_loads_nothing(page: Page, kind: str) -> None:
    text, _ = page(kind)
    reader = _read(text)
    assert reader.open == []
    assert not {"script", "link", "iframe", "img", "object", "embed", "base"} & {tag for tag, _ in reader.elements}
    for tag, attributes in reader.elements:
        for name, value in attributes.items():
            assert name not in ("src", "srcset", "action", "data"), tag
            assert not name.startswith("on"), tag
            assert not name.endswith("href") or (value or "").startswith("#")
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)


@pytest.mark.parametrize("kind", RUNS)
def test_every_drawing_has_words_for_those_who_do_not_see_it(page: Page, kind: str) -> None:
    reader = _read(page(kind)[0])
    drawings = [attributes for tag, attributes in reader.elements if tag == "svg"]
    assert all(d.get("aria-hidden") == "true" or (d.get("role") == "img" and d.get("aria-label")) for d in drawings)


def test_hostile_text_stays_text(page: Page) -> None:
    text, _ = page("hostile names")
    assert "<script" not in text
    shown = "".join(_read(text).text)
    assert shown.count("<script>alert('x')</script>") >= 5
    assert f"{HOSTILE} · testbed run" in shown


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    write_run(tmp_path, fake_run(requests_per_device=2))
    first = write_report(tmp_path).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def test_it_says_what_was_real_and_what_was_not(page: Page) -> None:
    shown = _shown(page("normal")[0])
    assert "pi-real (3 × raspberry-pi-5) – shards of the model ran" in shown
    assert "jetsons (4 × jetson-orin-nano), phones (6 × phone-flagship) – times and bytes from cost" in shown
    assert "3.25 s, measured where this ran" in shown


def test_an_interrupted_run_says_so(page: Page) -> None:
    reader = _read(page("interrupted")[0])
    assert ("div", {"class": "banner", "role": "alert"}) in reader.elements
    assert "interrupted by the user" in " ".join(reader.text)


def test_outcomes_other_than_completed_are_shown_with_their_reason(page: Page) -> None:
    text, summary = page("normal")
    assert summary["oom"]
    assert summary["failed"]
    shown = _shown(text)
    assert "device memory: 9.1 GB needed, 8.0 GB there" in shown
    assert "message lost for good" in shown
    assert f"{summary['oom']} out of memory, {summary['failed']} failed" in shown


def test_figures_of_the_summary_are_the_figures_shown(page: Page) -> None:
    text, summary = page("normal")
    shown = _shown(text)
    assert f"{1000 * summary['ttft_s']['p50']:.3g} ms" in shown
    assert f"{100 * summary['goodput']['share']:.1f} %" in shown
    assert f"{100 * summary['quality']['token_agreement']:.1f} %" in shown
    assert "the red boat is in the harbour (0)" in shown
    for hop in HOPS:
        assert HOP_WORDS[hop] in shown


def test_without_spans_the_page_says_what_it_can_not_draw(tmp_path: Path) -> None:
    write_run(tmp_path, fake_run(EDGE), spans=False)
    assert "Single messages were not recorded" in _shown(write_report(tmp_path).read_text(encoding="utf-8"))


def test_more_groups_than_colours_share_a_line(page: Page) -> None:
    reader = _read(page("many groups and servers")[0])
    assert "4 other groups" in reader.text
    assert "g8" in reader.text


def test_every_series_and_hop_has_its_look() -> None:
    assert len(set(DASHES)) == NUM_SERIES
    assert set(HOP_COLOURS) == set(HOPS) == set(HOP_WORDS)
    assert len(set(HOP_COLOURS.values())) == len(HOPS)


def test_a_folder_that_is_no_run_gets_no_report(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="is no run"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_traffic_over_time_holds_every_byte(tmp_path: Path) -> None:
    summary: dict[str, Any] = write_run(tmp_path, fake_run())
    columns = ["end_ns", "direction", "payload_bytes", "wire_bytes"]
    found = traffic(batches(tmp_path / files.TRANSFERS, columns), summary["duration_s"])
    assert found is not None
    slice_s = summary["duration_s"] / NUM_SLICES
    for direction in ("up", "down"):
        assert found.payload[direction].sum() * slice_s == pytest.approx(summary[f"bytes_{direction}"])
        assert found.wire[direction].sum() * slice_s == pytest.approx(summary[f"wire_bytes_{direction}"])


def test_load_over_time_by_hand() -> None:
    rows = [  # busy 0-3 s with 2 sequences and 6-9 s with 4, of 60 s: slices are 1 s
        {**dict.fromkeys(files.SERVER_SCHEMA.names, 0), "end_ns": 3 * 10**9, "num_sequences": 2},
        {
            **dict.fromkeys(files.SERVER_SCHEMA.names, 0),
            "start_ns": 6_500_000_000,
            "end_ns": 9 * 10**9,
            "num_sequences": 4,
            "num_waiting": 3,
        },
    ]
    found = load(pa.Table.from_pylist(rows, schema=files.SERVER_SCHEMA), 0, 60.0)
    np.testing.assert_allclose(found.busy[:10], [1, 1, 1, 0, 0, 0, 0.5, 1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(found.batch[[0, 2, 6, 8]], [2, 2, 4, 4])
    np.testing.assert_allclose(found.waiting[[0, 6]], [0, 3])
    assert np.isnan(found.batch[20])


def test_load_adds_up_to_the_servers_busy_time(tmp_path: Path) -> None:
    run = fake_run(num_servers=2)
    write_run(tmp_path, run)
    duration_s = run.end.end_ns / 1e9
    for server in (0, 1):
        busy = load(read_tables(tmp_path).servers, server, duration_s).busy
        assert busy.mean() * duration_s == pytest.approx(run.end.servers[server].busy_ns / 1e9)


@pytest.mark.parametrize("kind", RUNS)
def test_the_console_table_fits_80_columns(page: Page, kind: str) -> None:
    _, summary = page(kind)
    out = StringIO()
    Console(file=out, width=80, color_system=None).print(summary_table(summary))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("TTFT") for line in lines)
    assert str(summary["event_digest"])[:12] in out.getvalue()
    assert ("incomplete" in lines[0]) is not summary["complete"]


def test_the_console_table_needs_neither_matplotlib_nor_pyarrow() -> None:
    code = "import sys, testbed.report.console; sys.exit(bool({'matplotlib', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
