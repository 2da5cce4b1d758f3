"""`testbed eval`: what methods cost in quality. Everything heavy is imported by the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from testbed.studies.evaluation.run import Evaluation

WIDEST_TABLE = 110  # columns of the table, on whatever terminal

Names = list[str] | None
Model = Annotated[str, typer.Option("--model", help="pebble, a model folder or a Hugging Face id.")]
Methods = Annotated[
    Names, typer.Option("--method", "--methods", metavar="NAME", help="Rows: a name, several, or all. [default: fp]")
]
Split = Annotated[int | None, typer.Option("--split", help="Layers before the cut. [default: half]")]
Tasks = Annotated[
    Names, typer.Option("--tasks", metavar="NAME", help="Tasks or groups: all, pebble, harness, plain. [default: all]")
]
Codecs = Annotated[Names, typer.Option("--codec", help="At the cut in place of the method's; repeatable.")]
Weights = Annotated[
    str | None, typer.Option("--weights", metavar="YAML", help="A scenario's weights block in place of the method's.")
]
KV = Annotated[str | None, typer.Option("--kv", metavar="YAML", help="A scenario's kv block in place of the method's.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Items of each task. [default: all]")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Draw these items. [default: the first]")]
Data = Annotated[Path | None, typer.Option("--data", help="Local evaluation data. [default: the Hugging Face hub]")]
Output = Annotated[
    Path | None,
    typer.Option("--output", help="A folder; an interrupted eval continues. [default: runs/eval-MODEL-SPLIT]"),
]
Tokenizer = Annotated[str | None, typer.Option("--tokenizer", help="Where the model's folder has none.")]
Calibration = Annotated[Path | None, typer.Option("--calibration", help="A text file. [default: pebble's corpus]")]
Dtype = Annotated[str, typer.Option("--dtype", help="What shards compute in.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="1: bit for bit the unsplit model's.")]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def eval_(
    model: Model,
    method: Methods = None,
    split: Split = None,
    tasks: Tasks = None,
    codec: Codecs = None,
    weights: Weights = None,
    kv: KV = None,
    limit: Limit = None,
    seed: Seed = None,
    data: Data = None,
    output: Output = None,
    tokenizer: Tokenizer = None,
    calibration: Calibration = None,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 16,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure what methods cost in quality: methods x tasks, every text through the cut."""
    from testbed.studies.evaluation.ask import Question, prepare

    question = Question(
        model=model,
        methods=_listed(method or ["fp"]),
        split=split,
        tasks=_listed(tasks or ["all"]),
        codecs=tuple(codec or ()),
        weights=weights,
        kv=kv,
        limit=limit,
        seed=seed,
        data=data,
        tokenizer=tokenizer,
        calibration=calibration,
        dtype=dtype,
        batch_size=batch_size,
        device=device,
    )
    evaluation = prepare(question)
    _evaluate(evaluation, output or Path("runs") / f"eval-{Path(model).name}-{evaluation.cut.split}", as_json=as_json)


def _evaluate(evaluation: Evaluation, folder: Path, *, as_json: bool) -> None:
    """Run, write and print; what an interruption leaves is written too."""
    from testbed.report.evaluation import evaluation_figures, evaluation_table, write_evaluation
    from testbed.report.progress import cell_progress
    from testbed.studies.evaluation.run import read_evaluation, run_evaluation

    try:
        with cell_progress(quiet=as_json) as observer:
            report = run_evaluation(evaluation, folder, observer)
    except KeyboardInterrupt:
        write_evaluation(read_evaluation(folder), folder)
        print(f"incomplete: the rows so far are in {folder}; the same command continues", file=sys.stderr)
        raise
    files = write_evaluation(report, folder)
    if as_json:
        print(json.dumps({"folder": str(folder), "rows": evaluation_figures(report)}, indent=2))
        return
    from rich.console import Console

    console = Console()
    console.width = max(console.width, WIDEST_TABLE)  # rows that are cut off say less than rows that wrap
    console.print(evaluation_table(report))
    print(f"results: {folder}\ntable:   {files[0]}\nplot:    {files[-1]}")


def _listed(values: Sequence[str]) -> tuple[str, ...]:
    """Names given one by one or with commas."""
    return tuple(name for value in values for name in value.split(",") if name)
