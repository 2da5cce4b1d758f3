"""An evaluation as figures: methods x tasks on the console, in table.csv, table.md and accuracy.svg."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from testbed.core.units import BITS_PER_BYTE
from testbed.report import words

CSV_FILE, MARKDOWN_FILE, PLOT_FILE = "table.csv", "table.md", "accuracy.svg"
REFERENCE = "fp"
_PHASES = ("prefill", "decode")
_PERPLEXITIES = ("word_perplexity", "perplexity")  # a word (WikiText), a token (pebble's corpus)
_METRICS = ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr", *_PERPLEXITIES, "byte_perplexity", "bits_per_byte")
_Z_95 = 1.96
_PERCENT = 100

Figures = dict[str, Any]  # one row; keys are the columns of table.csv


def evaluation_figures(report: Mapping[str, Any]) -> list[Figures]:
    """A flat row for each method, in the order in which they were asked for."""
    rows, asked = report["rows"], report["asked"]
    reference = rows.get(REFERENCE)
    known = [name for name in asked["methods"] if name in rows]
    return [_figures(name, rows[name], asked["tasks"], reference) for name in known]


def _figures(name: str, row: Mapping[str, Any], tasks: Sequence[str], reference: Mapping[str, Any] | None) -> Figures:
    cells = {task: row["tasks"][task] for task in tasks if task in row["tasks"]}
    figures: Figures = {
        "method": name,
        "title": row["title"],
        "codec": row["codec"],
        "complete": len(cells) == len(tasks),
        "failed": row["failed"],
        **_average(cells),
        **_difference(cells, reference),
        "edge_bytes": row["edge_bytes"],
        "front_resident_bytes": row["front_resident_bytes"],
    }
    for phase in _PHASES:
        figures |= _traffic(phase, [cell[phase] for cell in cells.values()])
    for task, cell in cells.items():
        figures |= {f"{task}.num_items": cell["num_items"]}
        figures |= {f"{task}.{metric}": cell[metric] for metric in _METRICS if metric in cell}
        if "acc_interval_95" in cell:
            figures |= dict(zip((f"{task}.acc_low_95", f"{task}.acc_high_95"), cell["acc_interval_95"], strict=True))
    return figures


def _average(cells: Mapping[str, Mapping[str, Any]]) -> Figures:
    """Mean accuracy over the tasks that have one, each counting alike, and its standard error."""
    found = [(cell["acc"], cell["acc_stderr"]) for cell in cells.values() if "acc" in cell]
    if not found:
        return {"average_acc": None, "average_acc_stderr": None}
    mean = sum(acc for acc, _ in found) / len(found)
    return {"average_acc": mean, "average_acc_stderr": math.hypot(*(error for _, error in found)) / len(found)}


def _difference(cells: Mapping[str, Mapping[str, Any]], reference: Mapping[str, Any] | None) -> Figures:
    """Average accuracy less the reference's on the same items, with the paired standard error, and the share of items
    of which only one of the two has the right choice.
    """
    none: Figures = {"difference": None, "difference_stderr": None, "flip_rate": None}
    if reference is None:
        return none
    paired = [
        [int(mine) - int(theirs) for mine, theirs in zip(cell["right"], other["right"], strict=True)]
        for task, cell in cells.items()
        if "right" in cell and "right" in (other := reference["tasks"].get(task, {}))
    ]
    if not paired:
        return none
    means = [sum(changes) / len(changes) for changes in paired]
    errors = [_standard_error(changes) for changes in paired]
    return {
        "difference": sum(means) / len(means),
        "difference_stderr": math.hypot(*errors) / len(errors),
        "flip_rate": sum(abs(change) for changes in paired for change in changes) / sum(map(len, paired)),
    }


def _standard_error(values: Sequence[int]) -> float:
    if len(values) == 1:
        return math.nan
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def _traffic(phase: str, counted: Sequence[Mapping[str, int]]) -> Figures:
    tokens, values, size = (sum(one[key] for one in counted) for key in ("tokens", "values", "bytes"))
    return {
        f"{phase}_bytes_per_token": size / tokens if tokens else None,
        f"{phase}_bits_per_value": size * BITS_PER_BYTE / values if values else None,
    }


def evaluation_table(report: Mapping[str, Any]) -> RenderableType:
    """What `testbed eval` prints: scores, then what each method takes and how it compares with the reference."""
    header, lines = _lines(report, short=True)
    scores = 2 + len(report["asked"]["tasks"])
    parts: list[RenderableType] = [
        _table(header[:scores], [line[:scores] for line in lines]),
        Text(),
        _table([header[0], *header[scores:]], [[line[0], *line[scores:]] for line in lines]),
    ]
    failed = [(row["method"], row["failed"]) for row in evaluation_figures(report) if row["failed"]]
    reasons = [Text(f"{method} failed: {reason}", style="red") for method, reason in failed]
    return Group(*parts, *reasons, Text(), Text(_caption(report), style="dim"))


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(header):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=True)
    for line in lines:
        table.add_row(*map(Text, line))
    return table


def write_evaluation(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the table as CSV and Markdown and the plot beside the report; returns the files."""
    figures = evaluation_figures(report)
    written = {CSV_FILE: _as_csv(figures), MARKDOWN_FILE: _as_markdown(report), PLOT_FILE: _plot(figures)}
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in written]


def _as_csv(figures: Sequence[Figures]) -> str:
    columns = list(dict.fromkeys(key for row in figures for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(figures)
    return buffer.getvalue()


def _as_markdown(report: Mapping[str, Any]) -> str:
    header, lines = _lines(report)
    ruler = [":--", *["--:"] * (len(header) - 1)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in (header, ruler, *lines))
    return f"{table}\n\n{_caption(report)}\n"


def _lines(report: Mapping[str, Any], *, short: bool = False) -> tuple[list[str], list[list[str]]]:
    """The table's cells; `short` ones have names for titles and one decimal for two."""
    tasks = report["asked"]["tasks"]
    header = ["method", *tasks, "average", "vs FP", "flips", "B/token prefill", "B/token decode", "bits/value", "edge"]
    return header, [[*_cells(row, tasks, short=short)] for row in evaluation_figures(report)]


def _cells(row: Figures, tasks: Sequence[str], *, short: bool) -> Iterator[str]:
    mark = "" if row["complete"] else " (failed)" if row["failed"] else " (incomplete)"
    yield f"{row['method' if short else 'title']}{mark}"
    digits = 1 if short else 2
    for task in tasks:
        yield _score(row, task, digits)
    yield _percent(row["average_acc"], row["average_acc_stderr"], digits)
    yield _percent(row["difference"], row["difference_stderr"], 2, sign="+")
    yield words.share(row["flip_rate"])
    for phase in _PHASES:
        yield _number(row[f"{phase}_bytes_per_token"], ".1f")
    yield _number(row["prefill_bits_per_value"], ".2f")
    yield words.size(row["edge_bytes"])


def _score(row: Figures, task: str, digits: int) -> str:
    if f"{task}.acc" in row:
        return _percent(row[f"{task}.acc"], row[f"{task}.acc_stderr"], digits)
    return next((_number(row[f"{task}.{key}"], ".4g") for key in _PERPLEXITIES if f"{task}.{key}" in row), words.DASH)


def _percent(value: float | None, error: float | None, digits: int, *, sign: str = "") -> str:
    if value is None:
        return words.DASH
    told = f"{_PERCENT * value:{sign}.{digits}f}"
    return told if error is None or math.isnan(error) else f"{told}±{_PERCENT * error:.{digits}f}"


def _number(value: float | None, form: str) -> str:
    return words.DASH if value is None else f"{value:{form}}"


def _caption(report: Mapping[str, Any]) -> str:
    asked = report["asked"]
    which = "all items" if asked["limit"] is None else f"{asked['limit']} items a task"
    drawn = "" if asked["limit"] is None or asked["seed"] is None else f", drawn with seed {asked['seed']}"
    state = "" if report["complete"] else "Incomplete: the same command continues it. "
    return (
        f"{state}{asked['model']} cut after layer {asked['split']} of {asked['num_layers']}, {asked['dtype']}, {which}"
        f"{drawn}. Accuracies in percent ± one standard error; average and difference weigh tasks alike, the "
        "difference is paired over the same items, flips are items of which only one of the two is right. Perplexity "
        "is per word for wikitext and per token for corpus. Bytes are those of real messages; bits a value are the "
        "prefill's. edge is the law's demand for weights, KV cache and activations at the model's full length."
    )


def _plot(figures: Sequence[Figures]) -> str:
    """A line for each row: average accuracy with its 95 % interval, and bytes a token in both phases."""
    shown = [row for row in figures if row["average_acc"] is not None]
    places = range(len(shown))
    with mpl.rc_context({"svg.hashsalt": "split-testbed", "svg.fonttype": "none", "font.size": 8.5}):
        figure = Figure(figsize=(8, 1 + 0.22 * len(shown)), layout="constrained")
        quality, traffic = figure.subplots(1, 2, sharey=True)
        means = [_PERCENT * row["average_acc"] for row in shown]
        halves = [_PERCENT * _Z_95 * row["average_acc_stderr"] for row in shown]
        quality.errorbar(means, places, xerr=halves, fmt="o", markersize=4, linewidth=0.8)
        for phase, mark in zip(_PHASES, "so", strict=True):
            sent = [row[f"{phase}_bytes_per_token"] or math.nan for row in shown]
            traffic.plot(sent, places, mark, markersize=4, label=phase, fillstyle="none")
        quality.set(xlabel="average accuracy, %", yticks=places, yticklabels=[row["title"] for row in shown])
        quality.invert_yaxis()
        traffic.set(xlabel="bytes a token at the cut", xlim=(0, None))
        traffic.legend(fontsize=7, frameon=False)
        for axes in (quality, traffic):
            axes.grid(visible=True, linewidth=0.4)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return buffer.getvalue()
