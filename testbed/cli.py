"""The command line: parse, call, print. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from testbed import __version__
from testbed.cli_eval import eval_
from testbed.cli_local import calibrate, validate_local
from testbed.cli_model import app as model_app
from testbed.cli_network import link
from testbed.cli_study import app as study_app
from testbed.cli_topology import topology
from testbed.cli_workload import workload
from testbed.command import command_of, new_app
from testbed.core.errors import ScenarioError

if TYPE_CHECKING:
    from testbed.run import Prepared

NUM_TEXTS = 3  # printed of a run's real answers; all are in its tables

app = new_app("testbed", "Simulate and emulate adaptive split computing of large language models.")
app.add_typer(model_app)
app.add_typer(study_app)
command = command_of(app)
command(eval_)
command(link)
command(calibrate)
command(validate_local)
command(topology)
command(workload)


class ExecutorName(StrEnum):
    """Where real shards compute."""

    LOCAL = "local"
    RAY = "ray"


class Kind(StrEnum):
    """What `testbed list` can list."""

    DEVICE = "device"
    SERVER = "server"
    LINK = "link"
    TOPOLOGY = "topology"
    SHAPE = "shape"
    SCENARIO = "scenario"
    MODEL = "model"
    POLICY = "policy"
    CODEC = "codec"
    QUANTISER = "quantiser"
    RATE = "rate"
    LOSS = "loss"
    QUEUE = "queue"
    JITTER = "jitter"
    OUTAGE = "outage"
    TRANSPORT = "transport"
    DISCIPLINE = "discipline"
    ARRIVALS = "arrivals"
    SCHEDULER = "scheduler"
    ROUTER = "router"


ScenarioName = Annotated[str, typer.Argument(metavar="SCENARIO", help="A file, or the name of a shipped scenario.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", metavar="PATH=VALUE", help="Change a value: -o fleet.0.count=50. Repeatable."),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Another seed than the scenario's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Out = Annotated[Path | None, typer.Option("--out", help="The run folder. [default: runs/NAME-FINGERPRINT]")]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier run's folder.")]
Executor = Annotated[ExecutorName | None, typer.Option("--executor", help="Where real shards compute.")]
Address = Annotated[str | None, typer.Option("--address", help="Join this Ray cluster; implies --executor ray.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        print(f"testbed {__version__}")
        raise typer.Exit


@command
def run(
    scenario: ScenarioName,
    override: Overrides = None,
    seed: Seed = None,
    out: Out = None,
    force: Force = False,
    executor: Executor = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Run a scenario: results, summary and report go into a run folder."""
    from testbed import run as runs
    from testbed.report.html import write_report
    from testbed.report.progress import progress
    from testbed.run_folder import default_folder

    chosen = ExecutorName.RAY if address is not None else executor
    overrides = [*(override or []), *([f"execution.executor={chosen.value}"] if chosen else [])]
    prepared = _prepared(scenario, overrides, seed)
    folder = out or default_folder(prepared.scenario)

    def report_incomplete() -> None:
        print(f"incomplete: the results so far are in {folder}, {write_report(folder)}", file=sys.stderr)

    with progress(quiet=as_json) as observe:
        result = runs.run(
            prepared, folder, address=address, force=force, observe=observe, when_incomplete=report_incomplete
        )
    report = write_report(folder)
    if as_json:
        print(json.dumps({"folder": str(folder), **result.summary}, indent=2))
        return
    _print_summary(result.summary)
    for request, text in sorted(result.texts.items())[:NUM_TEXTS]:
        print(f"answer {request}: {text}")
    print(f"results: {folder}\nreport:  {report}")


@command
def validate(scenario: ScenarioName, override: Overrides = None, seed: Seed = None) -> None:
    """Check a scenario, the model it names and the files it reads, without running it."""
    from testbed.scenarios.fingerprint import fingerprint

    prepared = _prepared(scenario, override or [], seed)
    loaded = prepared.scenario
    real = sum(group.count for group in loaded.fleet if group.compute == "real")
    parts = [
        f"{_counted(sum(group.count for group in loaded.fleet), 'device')} ({real} real)",
        _counted(sum(servers.count for servers in loaded.servers), "server"),
        _counted(len(prepared.requests), "request"),
        f"model {loaded.model} with {prepared.source.shape.num_layers} layers",
        f"fingerprint {fingerprint(loaded)}",
    ]
    print(f"{loaded.name} is valid: {', '.join(parts)}")


@command
def list_(kind: Annotated[Kind, typer.Argument(help="What to list.")], as_json: AsJson = False) -> None:
    """List what a scenario can name, and where each entry comes from."""
    from testbed.catalogue import listing

    rows = listing(kind.value)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "description"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row["name"], row["description"])
    Console().print(table)


@command
def show(name: Annotated[str, typer.Argument(help="A device, server, link, topology, scenario or model.")]) -> None:
    """Print one entry with every number and its source."""
    from testbed.catalogue import described

    print(described(name))


@command
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")], as_json: AsJson = False
) -> None:
    """Write a run's report again, from its files, and print its summary."""
    from testbed.report.html import write_report
    from testbed.results.folder import open_tables, read_run

    summary = read_run(folder, open_tables).summary
    written = write_report(folder)
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    _print_summary(summary)
    print(f"report: {written}")


@command
def schema() -> None:
    """Print the JSON Schema of a scenario file, for editors."""
    from testbed.scenarios.json_schema import scenario_json_schema

    print(scenario_json_schema())


def _prepared(source: str, overrides: Sequence[str], seed: int | None) -> Prepared:
    """A scenario found to be possible; whatever is wrong with what it names is said of its own file, too."""
    from testbed import run as runs
    from testbed.scenarios.load import load_scenario, scenario_path

    file = scenario_path(source)
    loaded = load_scenario(file, overrides=overrides, seed=seed)
    try:
        return runs.prepare(loaded)
    except ScenarioError as error:
        inner = error.problem if error.file is None else f"{error.file}: {error.problem}"
        raise ScenarioError(
            inner, file=file, path=error.path, value=error.value, allowed=error.allowed, nearest=error.nearest
        ) from None


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _print_summary(summary: Any) -> None:
    from rich.console import Console

    from testbed.report.console import summary_table

    Console().print(summary_table(summary))


def main() -> None:
    app()
