"""What a rate-distortion study shows: a plot of each cut and phase, and the tables of its fronts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from testbed.report.figures import FIGURE_STYLE
from testbed.results.pareto import UNSPLIT, Point, groups, pareto

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]

_LEAST_KL = 1e-6  # below it a logarithmic axis has no room
_MOST_BITS = 12.0
_MARKERS = "os^vD<>Ph*Xpd"


def draw(points: Sequence[Point], asked: Mapping[str, Any], folder: Path) -> list[Path]:
    """An SVG file for each cut and phase: KL and, where it was measured, accuracy against bits a value."""
    written = []
    families = list(dict.fromkeys(point["family"] for point in points if point["family"] != UNSPLIT))
    for split, phase, own in groups(points):
        shown = [point for point in own if point["bits_per_value"] <= _MOST_BITS]
        if not shown:
            continue
        path = folder / f"front-cut{split}-{phase}.svg"
        exact = next((one for one in points if one["family"] == UNSPLIT and one["split"] == split), None)
        title = f"{Path(asked['model']).name}, d = {asked['hidden_size']}, cut {split}, {phase} messages"
        with mpl.rc_context(FIGURE_STYLE):
            _figure(shown, families, exact, title).savefig(path, metadata=dict.fromkeys(("Date", "Creator")))
        written.append(path)
    return written


def _figure(points: Sequence[Point], families: Sequence[str], exact: Point | None, title: str) -> Figure:
    has_accuracy = exact is not None and exact["accuracy"] is not None
    figure = Figure(figsize=(9.2 if has_accuracy else 6.2, 3.9), layout="constrained")
    panels = figure.subplots(1, 2) if has_accuracy else [figure.subplots()]
    _panel(panels[0], points, families, "kl_nats")
    panels[0].set(yscale="log", ylabel="KL to the unsplit model, nats a token")
    if has_accuracy and exact is not None:
        _panel(panels[1], points, families, "accuracy")
        panels[1].axhline(exact["accuracy"], color="#444444", linewidth=0.8, linestyle=(0, (4, 3)))
        panels[1].set(ylabel="choice accuracy")
    figure.suptitle(title, fontsize=9.5)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=7.5, frameon=False)
    return figure


def _panel(axes: Axes, points: Sequence[Point], families: Sequence[str], measure: str) -> None:
    colours = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for index, family in enumerate(families):
        own = [point for point in points if point["family"] == family]
        if own:
            rates = [point["bits_per_value"] for point in own]
            values = [_shown(point[measure], measure) for point in own]
            marker = _MARKERS[index % len(_MARKERS)]
            colour = colours[(2 * index) % 20 + index // 10]
            axes.scatter(rates, values, s=16, marker=marker, color=[colour], linewidths=0, label=family)
    best = pareto(points) if measure == "kl_nats" else _upper(points)
    axes.plot(
        [point["bits_per_value"] for point in best],
        [_shown(point[measure], measure) for point in best],
        color="#222222",
        linewidth=0.8,
        drawstyle="steps-post",
        label="front" if measure == "kl_nats" else None,
    )
    axes.set_xlabel("bits a value, everything included")


def _upper(points: Sequence[Point]) -> list[Point]:
    return pareto([{**point, "loss": -point["accuracy"]} for point in points], distortion="loss")


def _shown(value: float, measure: str) -> float:
    return max(value, _LEAST_KL) if measure == "kl_nats" else value


def summary_tables(points: Sequence[Point], winners: Sequence[Mapping[str, Any]]) -> list[Table]:
    """For each cut and phase the front of bits against KL, then the cheapest setting within each limit."""
    return [*_fronts(points), *_limits(winners)]


def _fronts(points: Sequence[Point]) -> Iterator[Table]:
    columns = ("codec", "bits", "without side", "KL", "perplexity", "accuracy", "flips")
    for split, phase, own in groups(points):
        exact = [one for one in points if one["family"] == UNSPLIT and one["split"] == split]
        rows = [_row(point) for point in [*exact, *pareto(own)]]
        yield f"cut {split}, {phase}: front of bits a value against KL", columns, rows


def _limits(winners: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    columns = ("limit", "codec", "bits", "next best", "next bits")
    for split, phase in dict.fromkeys((one["split"], one["phase"]) for one in winners):
        rows = [
            (
                _limit_name(one["limit"]),
                one["codec"] or "none",
                _number(one["bits_per_value"], ".2f"),
                one["next_codec"] or "none",
                _number(one["next_bits_per_value"], ".2f"),
            )
            for one in winners
            if (one["split"], one["phase"]) == (split, phase)
        ]
        yield f"cut {split}, {phase}: fewest bits within a limit, and the best of another family", columns, rows


def _limit_name(limit: str) -> str:
    return "accuracy within a point" if limit == "accuracy" else limit


def _row(point: Point) -> tuple[str, ...]:
    return (
        point["codec"] if point["family"] != UNSPLIT else UNSPLIT,
        _number(point["bits_per_value"], ".2f"),
        _number(point["bits_without_side"], ".2f"),
        _number(point["kl_nats"], ".2g"),
        _number(point["perplexity"], ".3f"),
        _number(point["accuracy"], ".4f"),
        _number(point["flip_rate"], ".4f"),
    )


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
