"""`testbed calibrate` and `testbed validate-local`: the model beside this machine, with late imports."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from testbed.core.errors import ScenarioError, nearest_name

if TYPE_CHECKING:
    from testbed.studies.local.calibrate import Calibration
    from testbed.studies.local.validate import Profiles, Ran, Trial

Repeats = Annotated[int, typer.Option("--repeats", min=1, help="How often each point is run.")]


def calibrate(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The profiles, as YAML; tables go beside it.")],
    model: Annotated[str, typer.Option("--model", metavar="M", help="pebble, a model folder or a Hugging Face id.")] = (
        "pebble"
    ),
    repeats: Annotated[int, typer.Option("--repeats", min=3, help="How often each prefill is timed; steps more.")] = 7,
) -> None:
    """Time a model's real shards on this machine, and write profiles that the simulator can take."""
    from testbed.studies.local.calibrate import calibrate as measured
    from testbed.studies.local.effort import Effort
    from testbed.studies.local.profile_files import write_profiles

    _check_out(out, "--out")
    found = measured(model, Effort(prefills=repeats, steps=3 * repeats))
    write_profiles(found, out)
    _print_fit(found)
    print(f"profiles: {out}")


def validate_local(
    scenario: Annotated[str | None, typer.Argument(help="A file or a shipped scenario. [default: a set of points]")] = (
        None
    ),
    profile: Annotated[
        Path | None, typer.Option("--profile", metavar="FILE", help="Of testbed calibrate. [default: calibrate first]")
    ] = None,
    point: Annotated[list[str] | None, typer.Option("--point", help="Of the set, only this one. Repeatable.")] = None,
    load: Annotated[str, typer.Option("--load", metavar="X,X", help="Arrivals so many times as frequent.")] = "1",
    override: Annotated[
        list[str] | None, typer.Option("-o", "--override", metavar="PATH=VALUE", help="Change the scenario.")
    ] = None,
    repeats: Repeats = 1,
    out: Annotated[Path | None, typer.Option("--out", metavar="CSV", help="Every figure of every repeat.")] = None,
) -> None:
    """Run a scenario with real shards and sockets on this machine and by the simulator; print the errors."""
    from testbed.studies.local.compare import over_repeats, write_table
    from testbed.studies.local.validate import all_errors, run_trials

    if out is not None:
        _check_out(out, "--out")
    trials = _trials(scenario, point or [], override or [], _loads(load), profile)
    ran = run_trials(trials, repeats, _print_progress)
    errors = all_errors(ran)
    _print_errors(over_repeats(errors), ran)
    if out is not None:
        write_table(errors, out)
        print(f"figures: {out}")


def _trials(
    scenario: str | None, points: Sequence[str], overrides: Sequence[str], loads: Sequence[float], profile: Path | None
) -> list[Trial]:
    """Everything that may be wrong is found before anything runs, the calibration apart."""
    from testbed.scenarios.load import load_scenario
    from testbed.studies.local.points import POINTS
    from testbed.studies.local.profile_files import read_profiles
    from testbed.studies.local.validate import trial

    if scenario is not None:
        if points:
            raise ScenarioError("points are of the set, not of a scenario", path="--point", value=points[0])
        loaded = load_scenario(scenario, overrides=overrides)
        named = [(loaded.name, loaded)]
    else:
        known = {point.name: point for point in POINTS}
        for name in points:
            if name not in known:
                raise ScenarioError(
                    "unknown point", path="--point", value=name, allowed=list(known), nearest=nearest_name(name, known)
                )
        named = [(name, known[name].scenario(overrides)) for name in points or known]
    profiles = _calibrated(named[0][1].model) if profile is None else read_profiles(profile)
    many = len(loads) > 1
    return [
        trial(f"{name}, load {load:g}" if many else name, one, profiles, load) for name, one in named for load in loads
    ]


def _calibrated(model: str) -> Profiles:
    from testbed.studies.local.calibrate import calibrate as measured
    from testbed.studies.local.effort import Effort
    from testbed.studies.local.profile_files import read_profiles, write_profiles

    print("no --profile: calibrating first")
    found = measured(model, Effort())
    _print_fit(found)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "profile.yaml"
        write_profiles(found, file)
        return read_profiles(file)


def _loads(text: str) -> list[float]:
    try:
        loads = [float(part) for part in text.split(",")]
    except ValueError:
        loads = []
    if not loads or not all(load > 0 and math.isfinite(load) for load in loads):
        raise ScenarioError("not loads", path="--load", value=text, allowed="numbers above 0, such as 0.5,1,2")
    return loads


def _check_out(file: Path, option: str) -> None:
    """Before minutes are spent on what can't be kept."""
    if file.is_dir() or not file.parent.is_dir():
        problem = "a folder, not a file" if file.is_dir() else "no such folder"
        raise ScenarioError(problem, path=option, value=str(file))


def _print_fit(found: Calibration) -> None:
    rows = [
        (
            part.part, str(part.count), f"{part.median_error:.1%}", f"{part.largest_error:.1%}",
            "" if math.isnan(part.spread) else f"{part.spread:.1%}",
        )
        for part in found.errors
    ]  # fmt: skip
    _print_table(("part", "timings", "median error", "largest", "spread of repeats"), rows)


def _print_progress(ran: Ran) -> None:
    from testbed.studies.local.compare import spread

    own = spread(ran.errors)
    busy = f"server {ran.server_share:.0%} busy, devices {ran.devices_share:.0%}, load average {ran.load_average:.1f}"
    print(f"{ran.name} #{ran.repeat}: median error {own.median:.1%}, largest {own.largest:.1%}; {busy}", flush=True)


def _print_errors(errors: Sequence[Any], ran: Sequence[Ran]) -> None:
    from testbed.studies.local.compare import spread
    from testbed.studies.local.validate import all_errors

    rows = [
        (item.point, f"{item.metric} {item.statistic}", *(_figure(item, value) for value in (item.real, item.modelled)),
         f"{item.error:+.1%}")
        for item in errors
    ]  # fmt: skip
    _print_table(("point", "figure", "real", "modelled", "error"), rows)
    for title, found in (("all figures, medians of repeats", errors), ("all figures, every repeat", all_errors(ran))):
        total = spread(found)
        print(
            f"{title}: {total.count}, median error {total.median:.1%}, p95 {total.p95:.1%}, largest {total.largest:.1%}"
        )


def _figure(item: Any, value: float) -> str:
    return f"{value * 1e3:.2f} ms" if item.unit == "s" else f"{value:.1f} {item.unit}"


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console().print(table, crop=False, soft_wrap=True)
