"""`testbed study ...`: many measurements of one question. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from testbed.command import command_of, new_app
from testbed.core.errors import ScenarioError

app = new_app("study", "Measure one question in many settings.")
command = command_of(app)


class Grid(StrEnum):
    """Codec settings to try."""

    QUICK = "quick"
    STANDARD = "standard"
    FULL = "full"


class Ablation(StrEnum):
    """One setting varied."""

    TAU = "tau"
    DELTA = "delta"
    QMAX = "qmax"
    SPLIT = "split"


@command
def rate_distortion(
    model: Annotated[str, typer.Option("--model", metavar="M", help="pebble, a model folder or a Hugging Face id.")],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Results; an interrupted study goes on.")],
    splits: Annotated[str | None, typer.Option("--splits", metavar="L,L", help="[default: the middle cut]")] = None,
    codec: Annotated[
        list[str] | None, typer.Option("--codec", metavar="C", help="This setting instead of a grid. Repeatable.")
    ] = None,
    grid: Annotated[Grid, typer.Option("--grid", help="Codec settings to try.")] = Grid.STANDARD,
    ablate: Annotated[Ablation | None, typer.Option("--ablate", help="Vary one setting instead of a grid.")] = None,
    phase: Annotated[str, typer.Option("--phases", help="Messages of a text, or of one token.")] = "prefill,decode",
    text: Annotated[Path | None, typer.Option("--text", help="Text for perplexity and KL. [default: pebble's]")] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=64, help="How much of the text.")] = 2000,
    items: Annotated[int, typer.Option("--items", min=0, help="Choice items of each kind; 0: all.")] = 100,
    tokenizer: Annotated[Path | None, typer.Option("--tokenizer", help="Where the model's folder has none.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Bits a value against accuracy, perplexity and KL for every codec setting, through real messages."""
    from testbed.models.source import resolve
    from testbed.report.progress import counted_progress
    from testbed.report.rate_distortion import draw, summary_tables
    from testbed.results.pareto import winners
    from testbed.studies.rate_distortion.grid import GRIDS, named_settings
    from testbed.studies.rate_distortion.study import Study, run_study
    from testbed.studies.rate_distortion.yardstick import make_yardstick

    source = resolve(model)
    layers = source.shape.num_layers
    every = ablate is Ablation.SPLIT and splits is None
    chosen = list(range(1, layers)) if every else _numbers("--splits", splits or str(max(1, layers // 2)))
    name = grid.value if ablate is None else ablate.value
    study = Study(
        source=source,
        yardstick=make_yardstick(
            source, text=text, tokenizer_file=tokenizer, num_tokens=tokens, per_kind=items or None
        ),
        cuts=chosen,
        settings=named_settings(codec) if codec else GRIDS[name](),
        phases=_phases(phase),
    )
    with counted_progress(quiet=as_json) as observe:
        points = run_study(study, output, observe)
    drawn = draw(points, study.described(), output)
    found = winners(points)
    if as_json:
        print(json.dumps({"folder": str(output), **study.described(), "winners": found}, indent=2))
        return
    _print_tables(summary_tables(points, found))
    print(f"results: {output} (points.csv, front.json, {', '.join(path.name for path in drawn)})")


@command
def payload_law(
    model: Annotated[str, typer.Option("--model", metavar="M", help="pebble, a model folder or a Hugging Face id.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The law, as JSON.")] = Path("payload_law.json"),
    codec: Annotated[list[str] | None, typer.Option("--codec", help="A setting; repeatable. [default: many]")] = None,
    split: Annotated[list[int] | None, typer.Option("--split", help="A cut; repeatable. [default: every]")] = None,
    text: Annotated[Path | None, typer.Option("--text", help="Text, read line by line. [default: pebble's]")] = None,
    tokenizer: Annotated[Path | None, typer.Option("--tokenizer", help="Where the model's folder has none.")] = None,
    sequences: Annotated[int, typer.Option("--sequences", min=4, help="To fit, and as many to test on.")] = 32,
) -> None:
    """Fit how many bytes a message takes where its content decides, for the modelled groups of scenarios."""
    from testbed.models.source import resolve
    from testbed.models.tokenizer import load_tokenizer
    from testbed.report.progress import counted_progress
    from testbed.studies.payload_law import CODECS, fit, write_payload_law

    source = resolve(model)
    splits = split or list(range(1, source.shape.num_layers))
    with counted_progress(quiet=False) as observe:
        law = fit(
            source,
            load_tokenizer(source, tokenizer),
            codecs=codec or CODECS,
            splits=splits,
            text=text,
            num_sequences=sequences,
            observe=observe,
        )
    write_payload_law(law, out)
    worst = max((max(item.held_out.prefill, item.held_out.decode), item.codec, item.split) for item in law.laws)
    print(
        f"{len(law.laws)} laws of {law.model} in {out}; worst held-out error {worst[0]:.1%}: {worst[1]} at {worst[2]}"
    )


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ScenarioError("not whole numbers", path=option, value=text, allowed="3,6,9 or so") from None


def _phases(text: str) -> list[str]:
    from testbed.studies.rate_distortion.crossing import PHASES

    wanted = [part.strip() for part in text.split(",")]
    for name in wanted:
        if name not in PHASES:
            raise ScenarioError("unknown phase", path="--phases", value=name, allowed=PHASES)
    return list(dict.fromkeys(wanted))


def _print_tables(tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for title, columns, rows in tables:
        table: Any = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for at, column in enumerate(columns):
            is_text = column in {"codec", "limit", "next best"}
            width = max(len(column), *(len(row[at]) for row in rows)) if rows else len(column)
            table.add_column(column, justify="left" if is_text else "right", no_wrap=True, min_width=width)
        for row in rows:
            table.add_row(*row)
        console.print(table, crop=False, soft_wrap=True)
