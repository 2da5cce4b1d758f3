"""`testbed study ...`: many measurements in one command. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from testbed.command import command_of, new_app

app = new_app("study", "Measure what single runs don't show.")
command = command_of(app)


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
    from testbed.report.progress import counting
    from testbed.studies.payload_law import CODECS, fit, write_payload_law

    source = resolve(model)
    splits = split or list(range(1, source.shape.num_layers))
    with counting("fitting") as observe:
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
