"""`testbed workload`: the requests that a scenario draws, beside what their laws let expect."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def workload(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A file, or the name of a shipped scenario.")],
    override: Annotated[
        list[str] | None, typer.Option("-o", "--override", metavar="PATH=VALUE", help="Change a value. Repeatable.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Another seed than the scenario's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Print how many requests come, when, and how long they are: drawn, and in brackets as expected."""
    from testbed.run import prepare
    from testbed.scenarios.load import load_scenario
    from testbed.sim.load_account import load_account

    prepared = prepare(load_scenario(scenario, overrides=override or [], seed=seed))
    rows = load_account(prepared.scenario, prepared.requests)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(_line(row))


def _line(row: dict[str, Any]) -> str:
    from testbed.core.units import format_seconds

    name = f"{row['group']}, {row['kind']}" if row["kind"] else row["group"]
    openings = _beside(row["openings"], row["expected_openings"])
    told = f"{name}: {row['arrivals']}, {openings} arrivals"
    if row["requests"] != row["openings"]:
        told += f" that open {row['requests']} requests"
    if row["requests"] == 0:
        return told
    span = f"from {format_seconds(row['first_s'])} to {format_seconds(row['last_s'])}"
    new = _beside(row["mean_new_tokens"], row["expected_new_tokens"])
    history = row["mean_prompt_tokens"] - row["mean_new_tokens"]
    prompt = f"prompts of {new} tokens" + (f" and {_short(history)} of history" if history else "")
    output = _beside(row["mean_output_tokens"], row["expected_output_tokens"])
    return f"{told} {span}; {prompt}, outputs of {output}"


def _beside(drawn: float, expected: float | None) -> str:
    return _short(drawn) if expected is None else f"{_short(drawn)} ({_short(expected)})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"
