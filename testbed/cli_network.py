"""`testbed link`: one link alone. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from testbed.core.errors import ScenarioError

SizeText = Annotated[str, typer.Option("--bytes", metavar="SIZE", help="Of a message: 16384, 16 KiB, 1 MB.")]


class Way(StrEnum):
    """Which of a link's two directions."""

    UP = "up"
    DOWN = "down"


def link(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A link of the catalogue, or a file.")],
    messages: Annotated[int, typer.Option("--messages", min=1, help="How many.")] = 1000,
    size: SizeText = "16 KiB",
    every: Annotated[
        str | None, typer.Option("--every", metavar="TIME", help="Between messages. [default: each after the other]")
    ] = None,
    direction: Annotated[Way, typer.Option("--direction", help="Which way.")] = Way.UP,
    override: Annotated[
        list[str] | None, typer.Option("-o", "--override", metavar="KEY=VALUE", help="-o loss=2%. Repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of every random draw.")] = 1,
    plot: Annotated[bool, typer.Option("--plot", help="Draw delay and goodput over time.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="The drawing. [default: runs/link-NAME.svg]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Send equal messages over one link alone; print delay, goodput and loss."""
    from testbed.network_models.transfer import Direction
    from testbed.scenarios.load import load_link
    from testbed.studies.link_trial import Load, run_trial, trial_summary

    profile = load_link(name, override or [])
    load = Load(
        num_messages=messages,
        payload_bytes=_bytes(size),
        every_ns=None if every is None else _nanoseconds(every),
        direction=Direction(direction.value),
    )
    trial = run_trial(profile, load, seed)
    summary = trial_summary(trial)
    drawing = (out or Path("runs") / f"link-{profile.name}.svg") if plot or out else None
    if drawing is not None:
        from testbed.report.link_trial import draw_trial

        drawing.parent.mkdir(parents=True, exist_ok=True)
        draw_trial(
            summary,
            sent_s=trial.sent_s,
            ended_s=trial.ended_s,
            delivered=trial.delivered,
            payload_bytes=load.payload_bytes,
            file=drawing,
        )
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    from rich.console import Console

    from testbed.report.link_trial import trial_table

    Console().print(trial_table(summary, messages, load.payload_bytes))
    if drawing is not None:
        print(f"drawing: {drawing}")


def _bytes(text: str) -> int:
    from testbed.core.units import parse_exactly

    try:
        size = int(text) if text.isdecimal() else round(parse_exactly(text, "size"))
    except ScenarioError as error:
        raise error.located(path="--bytes") from None
    if not 0 <= size <= 10**12:
        raise ScenarioError("not a message's size", path="--bytes", value=text, allowed="0 B to 1 TB")
    return size


def _nanoseconds(text: str) -> int:
    from testbed.core.units import NS_PER_S, parse_exactly

    try:
        time_ns = round(parse_exactly(text, "time") * NS_PER_S)
    except ScenarioError as error:
        raise error.located(path="--every") from None
    if time_ns < 1:
        raise ScenarioError("too small", path="--every", value=text, allowed="at least 1 ns")
    return time_ns
