"""`testbed model ...`: what is made of models. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.command import command_of, new_app
from testbed.core.errors import ScenarioError

if TYPE_CHECKING:
    from testbed.models.outliers.make import Made

NO_VALUES = "none"

app = new_app("model", "Make variants of models.")
command = command_of(app)

Model = Annotated[str, typer.Option("--model", metavar="M", help="pebble, a model folder or a Hugging Face id.")]
Output = Annotated[Path, typer.Option("--output", metavar="DIR", help="The folder to write; new or empty.")]
Values = Annotated[str, typer.Option(metavar="A,B", help="Values of such channels, one each, or none.")]


@command
def outliers(
    model: Model,
    output: Output,
    width: Annotated[int, typer.Option("--width", min=2, help="Hidden size D of the variant.")] = 1024,
    cut: Annotated[int | None, typer.Option("--cut", help="Where second moments are measured. [default: L/2]")] = None,
    massive: Values = "400,-250",
    constant: Values = NO_VALUES,
    first_token: Annotated[int | None, typer.Option("--first-token", help="[default: the model's BOS]")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Deals channels and rotation.")] = 0,
    text: Annotated[Path | None, typer.Option("--text", help="Text to calibrate on. [default: pebble's]")] = None,
    tokenizer: Annotated[Path | None, typer.Option("--tokenizer", help="Where the model's folder has none.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Put outliers into a model's hidden states and leave every logit as it was; then measure both.

    The direction of the largest second moment becomes a channel of its own (in every token), `--massive` values stand
    in the first token only, `--constant` ones, a stress test, in every token.
    """
    from testbed.models.outliers.make import make_outliers
    from testbed.models.outliers.recipe import Outliers, middle_cut
    from testbed.models.source import resolve

    source = resolve(model)
    chosen = Outliers(
        width=width,
        cut=middle_cut(source) if cut is None else cut,
        massive=_values("--massive", massive),
        constant=_values("--constant", constant),
        first_token=first_token,
        seed=seed,
    )
    made = make_outliers(source, chosen, output, text=text, tokenizer_file=tokenizer)
    if as_json:
        print(json.dumps(made.as_dict(), indent=2))
        return
    _print_made(made)


def _values(option: str, text: str) -> tuple[float, ...]:
    if text.strip() == NO_VALUES:
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ScenarioError("not numbers", path=option, value=text, allowed=f"400,-250 or so, or {NO_VALUES}") from None


def _print_made(made: Made) -> None:
    from rich.console import Console
    from rich.table import Table

    for line in made.told():
        print(line)
    table = Table(box=None, pad_edge=False)
    for column in ("cut", "outlier channel, rms / median", "first token, max / median", "restored within"):
        table.add_column(column, justify="right")
    for row in made.proof.cuts:
        table.add_row(
            str(row.cut), f"{row.outlier_over_median:.1f}", f"{row.first_over_median:.0f}", f"{row.error:.1e}"
        )
    Console().print(table)
    print(f"results: {made.variant.folder}")


@command
def quantise(
    model: Model,
    split: Annotated[int, typer.Option("--split", min=0, help="Layers before the change point, with front bits.")],
    output: Output,
    method: Annotated[str, typer.Option("--method", help="As weights.method of a scenario.")] = "rtn",
    front_bits: Annotated[int | None, typer.Option("--front-bits", help="[default: as they are]")] = None,
    back_bits: Annotated[int | None, typer.Option("--back-bits", help="[default: as they are]")] = None,
    group_size: Annotated[int | None, typer.Option("--group-size", help="[default: one group a row]")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("-o", "--override", metavar="KEY=VALUE", help="Any other key of weights. Repeatable."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", metavar="FILE", help="Texts to read. [default: pebble's corpus]")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option("--tokenizer", help="Where the model's folder has none.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="What the weights are read in; as the scenario's.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Pack a model's weights into a folder that scenarios load under `weights.saved`."""
    from testbed.report.progress import counted_progress
    from testbed.scenarios.overrides import apply_overrides
    from testbed.studies.quantise import prepare, quantise_model

    asked = {"method": method, "front_bits": front_bits, "back_bits": back_bits, "group_size": group_size}
    packing = prepare(
        model,
        apply_overrides(asked, setting or []),
        split=split,
        calibration=calibration,
        dtype=dtype,
        tokenizer=None if tokenizer is None else str(tokenizer),
    )
    with counted_progress(quiet=as_json) as observe:
        packed = quantise_model(packing, output, observe=observe)
    if as_json:
        print(json.dumps(packed.as_dict(), indent=2))
        return
    for line in packed.told():
        print(line)
