"""Plots as inline SVG. Colours are the page's CSS variables, so one drawing serves light and dark; the same data give
the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, MultipleLocator, NullFormatter, PercentFormatter

from testbed.core.events import HOPS
from testbed.report.markup import Markup
from testbed.report.series import Delays, Load, Steps, Traffic, slice_edges_s
from testbed.report.style import DASHES, HOP_COLOURS, NUM_SERIES

FloatArray = npt.NDArray[np.float64]

# Stand-ins that Matplotlib can draw with; `_inline` puts the page's variables in their place.
_INK, _GRID, _PAPER = "#010101", "#020202", "#030303"
_SERIES = tuple(f"#0404{index:02x}" for index in range(NUM_SERIES))
_VARIABLES = {
    _INK: "var(--soft)",
    _GRID: "var(--line)",
    _PAPER: "var(--card)",
    **{colour: f"var(--s{index})" for index, colour in enumerate(_SERIES)},
}
_STYLE: Any = {  # Matplotlib types its keys one by one, and by version
    "svg.hashsalt": "split-testbed",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 8.5,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "lines.linewidth": 1.5,
}
_WIDTH_IN = 5.4
_WIDE_IN = 8.6
_LOG_FROM = 30  # ratio of the largest to the smallest value at which a linear axis hides the small ones
_MAX_NAME = 30


def latency_cdf(name: str, lines: Sequence[FloatArray], label: str, limit_s: float | None) -> Markup:
    """The share of completed requests that were at least as fast; `limit_s` is the SLO's. An empty line is left out.

    `name` is a word of its own in the page, for the drawing's ids.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(_WIDTH_IN, 3.0)
        for index, values in enumerate(lines):
            if values.size:
                ordered = np.sort(values)
                heights = np.arange(values.size + 1) / values.size
                axes.step(np.concatenate([ordered[:1], ordered]), heights, where="post", **_line(index))
        if limit_s is not None:
            axes.axvline(limit_s, color=_INK, linewidth=1, linestyle=(0, (2, 2)))
            axes.annotate(
                "SLO", (limit_s, 1.0), (3, -2), textcoords="offset points", va="top", xycoords=("data", "axes fraction")
            )
        _latency_axis(axes, np.concatenate(lines))
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        return _inline(figure, name, f"Cumulative distribution of {label}")


def time_by_hop(mean_s: Mapping[str, Mapping[str, float]]) -> Markup:
    """A bar a group: the mean time of its completed requests, hop after hop."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(_WIDE_IN, 0.75 + 0.36 * len(mean_s))
        left = np.zeros(len(mean_s))
        rows = np.arange(len(mean_s))
        for hop in HOPS:
            widths = np.array([group[hop] for group in mean_s.values()])
            axes.barh(rows, widths, left=left, height=0.62, color=HOP_COLOURS[hop], edgecolor=_PAPER, linewidth=0.5)
            left += widths
        axes.set_yticks(rows, [_short(name) for name in mean_s])
        axes.set(xlabel="mean time of a completed request", ylim=(len(mean_s) - 0.5, -0.5))
        axes.xaxis.set_major_formatter(EngFormatter(unit="s"))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        return _inline(
            figure, "hops", "Mean time by hop, a stacked bar for each group; the table below has the figures"
        )


def traffic_over_time(traffic: Traffic, duration_s: float) -> Markup:
    """Payload as an area, everything on the wire as a line above it; up and down each on its own scale."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDE_IN, 2.5), layout="constrained")
        for index, (axes, direction) in enumerate(zip(figure.subplots(1, 2), ("up", "down"), strict=True)):
            edges = slice_edges_s(duration_s)
            axes.stairs(traffic.payload[direction] * 8, edges, fill=True, color=_SERIES[index], alpha=0.35)
            axes.stairs(traffic.wire[direction] * 8, edges, color=_SERIES[index], linewidth=1.3)
            axes.set_title(f"{direction}-link", loc="left", fontsize=9)
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(EngFormatter(unit="bit/s"))
            _time_axis(axes, duration_s)
        return _inline(figure, "traffic", "Traffic over time: payload as an area, bytes on the wire as a line")


def delay_over_time(found: Mapping[str, Delays], duration_s: float) -> Markup:
    """Median and 95th percentile of each slice, up and down one above the other, and what never came as crosses."""
    edges = slice_edges_s(duration_s)
    centres = (edges[:-1] + edges[1:]) / 2
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDE_IN, 3.6), layout="constrained")
        for index, (axes, direction) in enumerate(zip(figure.subplots(2, 1, sharex=True), ("up", "down"), strict=True)):
            one = found[direction]
            median, high = one.by_slice(duration_s, 50), one.by_slice(duration_s, 95)
            axes.fill_between(centres, median, high, color=_SERIES[index], alpha=0.3, linewidth=0, step="mid")
            axes.step(centres, median, where="mid", color=_SERIES[index], linewidth=1.3, marker=".", markersize=2)
            gone = ~one.delivered
            axes.plot(one.sent_s[gone], one.delay_s[gone], "x", color=_INK, markersize=4)
            axes.set_title(f"{direction}-link", loc="left", fontsize=9)
            _delay_axis(axes, one.delay_s)
            axes.set_xlim(0, duration_s)
        axes.xaxis.set_major_locator(MaxNLocator(8))
        axes.set_xlabel("virtual time, s")
        return _inline(
            figure, "delays", "Delay of messages over time: median as a line, up to the 95th percentile as an area"
        )


def load_over_time(loads: Sequence[Load], duration_s: float) -> Markup:
    """Utilisation, batch and queue, a line a server."""
    edges = slice_edges_s(duration_s)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDE_IN, 2.3), layout="constrained")
        panels = figure.subplots(1, 3)
        names = ("busy", "batch", "waiting")
        titles = ("busy share of time", "sequences in a batch", "sequences left waiting")
        for axes, name, title in zip(panels, names, titles, strict=True):
            for index, load in enumerate(loads):
                # The dot shows a slice whose neighbours have no value.
                axes.plot((edges[:-1] + edges[1:]) / 2, getattr(load, name), marker=".", markersize=2, **_line(index))
            axes.set_title(title, loc="left", fontsize=9)
            axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
            _time_axis(axes, duration_s)
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=name != "busy"))
        panels[0].set_ylim(0, 1.02)
        panels[0].yaxis.set_major_locator(MultipleLocator(0.25))
        panels[0].yaxis.set_major_formatter(PercentFormatter(1.0))
        return _inline(figure, "load", "Server load over time: busy share, batch size and queue")


def servers_over_time(load: FloatArray, counts: Mapping[str, Steps], duration_s: float) -> Markup:
    """Requests under way, and below them how many servers there were."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDE_IN, 3.4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        above.plot(slice_edges_s(duration_s), load, **_line(0))
        above.set_title("requests under way", loc="left", fontsize=9)
        for index, (name, steps) in enumerate(counts.items()):
            below.step(steps.start_s, steps.count, where="post", label=name, **_line(index))
        below.set_title("servers", loc="left", fontsize=9)
        below.legend(fontsize=8, frameon=False)
        for axes in (above, below):
            axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        _time_axis(below, duration_s)
        return _inline(figure, "servers", "Requests under way and number of servers over time")


def _figure(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    return figure, figure.subplots()


def _line(index: int) -> dict[str, Any]:
    dashes = tuple(float(part) for part in DASHES[index].split())
    return {"color": _SERIES[index], "linestyle": (0, dashes) if dashes else "solid"}


def _latency_axis(axes: Axes, values: FloatArray) -> None:
    positive = values[values > 0]
    if positive.size and positive.max() > _LOG_FROM * positive.min():
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(unit="s"))


def _delay_axis(axes: Axes, delay_s: FloatArray) -> None:
    positive = delay_s[delay_s > 0]
    if positive.size and positive.max() > _LOG_FROM * positive.min():
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())  # over less than a decade these would have labels, as TeX
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(EngFormatter(unit="s"))


def _time_axis(axes: Axes, duration_s: float) -> None:
    axes.set_xlim(0, duration_s)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("virtual time, s")


def _short(name: str) -> str:
    """Cut in the middle: names of one fleet often begin alike."""
    half = _MAX_NAME // 2
    return name if len(name) <= _MAX_NAME else f"{name[:half]}…{name[-half:]}"


def _inline(figure: Figure, name: str, alternative: str) -> Markup:
    """The drawing as an element of the page, with ids of its own and without metadata."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    # Not by `savefig`, which would draw twice.
    FigureCanvasSVG(figure).print_svg(buffer, metadata=no_metadata)  # type: ignore[no-untyped-call]
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    view_box = re.search(r'viewBox="[^"]*"', text)
    assert view_box is not None, "Matplotlib's SVG has a viewBox"
    text = text[text.index(">") + 1 :]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"#0[1-4]0[1-4][0-9a-f]{2}\b", lambda found: _VARIABLES[found[0]], text)
    return Markup(f'<svg role="img" aria-label="{alternative}" {view_box[0]}>{text}')
