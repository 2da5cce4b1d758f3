"""The command line: what it prints where, its exit codes, what it leaves on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
import yaml

from testbed import __version__
from testbed.cli import Kind
from testbed.core.registry import SEAMS
from testbed.results import files
from testbed.scenarios.catalogue import entries
from testbed.scenarios.jitter import JitterLaw
from testbed.scenarios.load import load_scenario
from tests.unit.test_bad_input import refused
from tests.unit.tiny_scenario import TINY, call, files_below, tiny, write

ROOT = Path(__file__).parents[2]
ALWAYS = {
    files.SCENARIO,
    files.ENVIRONMENT,
    files.SUMMARY,
    files.REPORT,
    files.REQUESTS,
    files.SERVERS,
    files.SERVER_TOTALS,
    files.LINKS,
    files.DEVICES,
}


@pytest.fixture(autouse=True)
def _beside_the_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "tiny.yaml", TINY)


def python(*arguments: str, **more: Any) -> subprocess.Popen[str]:
    """A process that an interrupt ends, also where these tests run in the background and ignore it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - it takes no lock
        **more,
    )


# ---- run


def test_a_run_writes_every_promised_file_and_a_table_for_people() -> None:
    done = call("run", "tiny.yaml", "--out", "out")
    assert (done.code, done.error, done.err) == (0, None, "")
    assert {path.name for path in Path("out").iterdir()} == ALWAYS | {files.SPANS, files.TRANSFERS}
    assert "4 of 4 completed" in done.out
    assert "out/report.html" in done.out
    summary = json.loads(Path("out/summary.json").read_text())
    assert (summary["complete"], summary["completed"]) == (True, 4)
    assert load_scenario("out/scenario.yaml") == load_scenario("tiny.yaml")


def test_without_spans_only_the_streamed_tables_are_left_out() -> None:
    assert call("run", "tiny.yaml", "--out", "out", "-o", "record.spans=false").code == 0
    assert {path.name for path in Path("out").iterdir()} >= ALWAYS
    assert not Path("out", files.SPANS).exists()


def test_json_is_all_that_json_prints() -> None:
    done = call("run", "tiny.yaml", "--json")
    assert (done.code, done.err) == (0, "")
    printed = json.loads(done.out)
    folder = Path(printed.pop("folder"))
    assert folder.parent == Path("runs")
    assert printed == json.loads((folder / "summary.json").read_text())


def test_seed_and_overrides_reach_the_run() -> None:
    assert call("run", "tiny.yaml", "--seed", "9", "-o", "fleet.pis.count=1", "--out", "out").code == 0
    written = load_scenario("out/scenario.yaml")
    assert (written.seed, written.fleet[0].count) == (9, 1)


def test_an_earlier_run_is_neither_replaced_nor_touched() -> None:
    assert call("run", "tiny.yaml", "--out", "out").code == 0
    assert refused("run", "tiny.yaml", "--out", "out", "--seed", "4") == (
        "out: the run folder exists; allowed: another --out, or --force to replace it"
    )
    assert call("run", "tiny.yaml", "--out", "out", "--seed", "4", "--force").code == 0
    assert load_scenario("out/scenario.yaml").seed == 4


def test_force_does_not_take_a_folder_that_no_run_wrote() -> None:
    mine = Path("mine")
    mine.mkdir()
    write(mine / "scenario.yaml", TINY)
    (mine / "thesis.tex").write_text("years of work")
    assert refused("run", "tiny.yaml", "--out", "mine", "--force") == (
        "mine: exists and is no run folder; allowed: another --out"
    )
    assert (
        refused("run", "tiny.yaml", "--out", ".", "--force") == ".: exists and is no run folder; allowed: another --out"
    )


def test_a_run_folder_below_a_file() -> None:
    expected = "tiny.yaml/out: the run folder can't be written: Not a directory; allowed: another --out"
    assert refused("run", "tiny.yaml", "--out", "tiny.yaml/out") == expected


# ---- the other commands


def test_validate_says_what_would_run_and_writes_nothing() -> None:
    before = files_below(Path())
    done = call("validate", "tiny.yaml", "-o", "fleet.0.count=1", "-o", "workload.arrivals.requests_per_device=1")
    assert done.code == 0
    assert done.out.startswith(
        "tiny is valid: 1 device (0 real), 1 server, 1 request, model llama-3.2-1b with 16 layers"
    )
    assert files_below(Path()) == before


@pytest.mark.parametrize("kind", list(Kind))
def test_list_names_every_entry_of_a_kind(kind: Kind) -> None:
    done = call("list", kind.value, "--json")
    assert (done.code, done.err) == (0, "")
    rows = json.loads(done.out)
    known = {registry.kind: list(registry) for registry in SEAMS}
    known |= {"jitter": list(get_args(JitterLaw)), "shape": ["star", "tree", "metro-ring", "multi-region"]}
    if kind is Kind.MODEL:
        assert {"pebble", "llama-2-7b"} <= {row["name"] for row in rows}
    else:
        assert [row["name"] for row in rows] == (known.get(kind.value) or list(entries(kind.value)))
    assert all(row["description"] and row["origin"] for row in rows)
    table = call("list", kind.value).out
    assert all(row["name"] in table for row in rows)


def test_every_seam_can_be_listed() -> None:
    assert {registry.kind for registry in SEAMS} <= {kind.value for kind in Kind}


def test_show_prints_an_entry_with_its_sources() -> None:
    done = call("show", "raspberry-pi-5")
    assert done.code == 0
    assert done.out.startswith("# device, ")
    assert "source:" in done.out
    assert yaml.safe_load(call("show", "llama-3.2-1b").out)["num_layers"] == 16
    assert call("show", "smoke").out.startswith("# scenario, ")


def test_show_of_nothing_offers_the_nearest_name() -> None:
    assert refused("show", "raspbery-pi-5") == (
        "nothing has this name (got 'raspbery-pi-5'); did you mean 'raspberry-pi-5'?"
    )


def test_report_is_made_again_from_the_files() -> None:
    call("run", "tiny.yaml", "--out", "out")
    page = Path("out/report.html").read_bytes()
    Path("out/report.html").unlink()
    done = call("report", "out")
    assert done.code == 0
    assert "4 of 4 completed" in done.out
    assert Path("out/report.html").read_bytes() == page
    assert json.loads(call("report", "out", "--json").out) == json.loads(Path("out/summary.json").read_text())


def test_report_of_something_else() -> None:
    Path("empty").mkdir()
    assert refused("report", "empty") == "empty: this folder is no run; allowed: a folder with summary.json in it"
    assert refused("report", "nowhere") == "nowhere: there is no such run folder"


def test_schema_prints_json() -> None:
    done = call("schema")
    assert done.code == 0
    assert set(json.loads(done.out)["required"]) == {"name", "model", "seed", "policy", "fleet"}


def test_version() -> None:
    assert call("--version").out == f"testbed {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [["rum"], ["run"], ["list", "devices"], ["run", "tiny.yaml", "--seed", "-1"], ["run", "tiny.yaml", "--fast"],
     ["run", "tiny.yaml", "--executor", "rey"], ["run", "tiny.yaml", "-o"]],
)  # fmt: skip
def test_a_wrong_command_line_is_explained_and_exits_with_2(arguments: list[str]) -> None:
    before = files_below(Path())
    done = call(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Error" in done.err
    assert files_below(Path()) == before


def test_a_bad_override_is_named_itself() -> None:
    line = "-o fleet.7.count=1: fleet.7: no such entry (got '7'); allowed: 0, pis"
    assert refused("run", "tiny.yaml", "-o", "fleet.7.count=1") == line


# ---- in a process of its own


def test_a_modelled_run_loads_neither_torch_nor_ray_and_shows_no_bar_in_a_pipe() -> None:
    # Not pandas: pyarrow imports it as soon as it makes an array, where something has installed it.
    heavy = ["torch", "transformers", "ray"]
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('loaded', sorted(set({heavy}) & set(sys.modules)), file=sys.stderr))\n"
        "sys.argv = ['testbed', 'run', 'tiny.yaml', '--out', 'out']\n"
        "from testbed.cli import main\nmain()"
    )
    out, err = python("-c", code).communicate(timeout=120)
    assert err == "loaded []\n"
    assert "4 of 4 completed" in out
    assert "\x1b" not in out


def test_an_interrupted_run_keeps_what_it_has_and_says_so() -> None:
    write(Path("long.yaml"), tiny(("workload.arrivals.requests_per_device", 1500), ("fleet.0.count", 10)))
    running = python("-m", "testbed", "run", "long.yaml", "--out", "out")
    spans, deadline = Path("out", files.SPANS), time.monotonic() + 60
    while not (spans.exists() and spans.stat().st_size > 4) and time.monotonic() < deadline:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert out == ""
    assert err == "incomplete: the results so far are in out, out/report.html\ninterrupted\n"
    summary = json.loads(Path("out/summary.json").read_text())
    assert (summary["complete"], summary["reason"]) == (False, "interrupted")
    ended = pq.read_table("out/requests.parquet")
    assert summary["completed"] <= ended.num_rows < 15_000
    assert pq.read_table(spans).num_rows > 0
    assert "interrupted" in Path("out/report.html").read_text()
    assert "interrupted" in call("report", "out").out
    assert call("run", "tiny.yaml", "--out", "out", "--force").code == 0


def test_an_interrupt_while_everything_is_still_loading_leaves_no_traceback() -> None:
    """The import of the command line itself is interrupted, at a known place."""
    code = (
        "import builtins, runpy, sys\n"
        "true_import = builtins.__import__\n"
        "def interrupted(name, *rest, **more):\n"
        "    if name == 'typer':\n"
        "        raise KeyboardInterrupt\n"
        "    return true_import(name, *rest, **more)\n"
        "builtins.__import__ = interrupted\n"
        "sys.argv = ['testbed', 'schema']\n"
        "runpy.run_module('testbed', run_name='__main__')\n"
    )
    process = python("-c", code)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130
