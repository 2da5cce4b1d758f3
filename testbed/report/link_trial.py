"""What a trial of one link shows: a table for the terminal, and a drawing of delay and goodput."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter
from rich.console import RenderableType
from rich.table import Table

from testbed.core.units import BITS_PER_BYTE, format_si
from testbed.report import words
from testbed.report.figures import FIGURE_STYLE

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_SLICES = 60
_BLUE, _RED, _GREY = "#0068a8", "#c9500c", "#5b6472"
_LOG_FROM = 30  # ratio of the largest to the smallest delay at which a linear axis hides the small ones


def trial_table(summary: Mapping[str, Any], num_messages: int, payload_bytes: int) -> RenderableType:
    """A line a fact, 80 columns."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True, width=12)
    table.add_column(overflow="fold")
    for name, told in _lines(summary, num_messages, payload_bytes):
        table.add_row(name, told)
    return table


def _lines(summary: Mapping[str, Any], num_messages: int, payload_bytes: int) -> Iterator[tuple[str, str]]:
    account, delay = summary["account"], summary["delay_s"]
    resolution = "each packet an event" if summary["resolution"] == "packets" else "computed message by message"
    yield "link", f"{summary['link']}, {summary['direction']}, {summary['transport']}, {resolution}"
    yield (
        "messages",
        f"{words.number(num_messages)} of {words.size(payload_bytes)} in {words.seconds(summary['duration_s'])}",
    )
    troubles = [f"{words.number(summary[name])} {name}" for name in ("lost", "timeout", "corrupt") if summary[name]]
    yield "ended", ", ".join([f"{words.number(summary['delivered'])} delivered", *troubles])
    if delay is not None:
        yield "delay", ", ".join(f"{name} {words.seconds(value)}" for name, value in delay.items())
    if delay is not None and delay["mean"]:
        shares = {part: mean_s / delay["mean"] for part, mean_s in summary["mean_part_s"].items()}
        shown = [f"{part} {words.share(share)}" for part, share in shares.items() if share >= 0.0005]  # noqa: PLR2004
        yield "of it", ", ".join(shown)
    if summary["goodput_bps"] is not None:
        yield (
            "goodput",
            f"{format_si(summary['goodput_bps'], 'bit/s')}, link busy {words.share(summary['utilisation'])}",
        )
    again = account["retransmissions"]
    yield (
        "packets",
        (
            f"{words.number(account['packets'])} and {words.number(again)} again; "
            f"{words.share(summary['packet_loss'])} lost, {words.share(summary['packet_drops'])} dropped by the queue"
        ),
    )
    yield (
        "bytes",
        f"{words.size(account['wire_bytes'])} on the wire, {words.size(account['ack_bytes'])} acknowledgements",
    )
    yield "queue", f"at most {words.size(summary['peak_backlog_bytes'])}"


def draw_trial(
    summary: Mapping[str, Any],
    *,
    sent_s: FloatArray,
    ended_s: FloatArray,
    delivered: BoolArray,
    payload_bytes: int,
    file: Path,
) -> None:
    """Delay of each message over time, its distribution, and goodput over time, in the format of the file's ending."""
    with mpl.rc_context(FIGURE_STYLE):
        figure = Figure(figsize=(9.2, 4.6), layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(2, 1))
        over_time = figure.add_subplot(grid[0, 0])
        _delays(over_time, sent_s, ended_s - sent_s, delivered)
        _goodput(figure.add_subplot(grid[1, 0], sharex=over_time), ended_s[delivered], payload_bytes)
        _distribution(figure.add_subplot(grid[:, 1]), (ended_s - sent_s)[delivered])
        way = f"{summary['link']}, {summary['direction']}-link, {summary['transport']}"
        figure.suptitle(f"{way}: {sent_s.size} messages of {format_si(payload_bytes, 'B')}", fontsize=9.5)
        figure.savefig(file, metadata=dict.fromkeys(("Date", "Creator")) if file.suffix == ".svg" else None)


def _delays(axes: Axes, sent_s: FloatArray, delay_s: FloatArray, delivered: BoolArray) -> None:
    axes.plot(sent_s[delivered], delay_s[delivered], ".", markersize=2.5, color=_BLUE, label="delivered")
    if not delivered.all():
        axes.plot(sent_s[~delivered], delay_s[~delivered], "x", markersize=4, color=_RED, label="not delivered")
        axes.legend(frameon=False, fontsize=7.5)
    _delay_scale(axes, delay_s, "y")
    axes.set(title="delay of a message, by when it was sent")
    axes.tick_params(labelbottom=False)


def _goodput(axes: Axes, ended_s: FloatArray, payload_bytes: int) -> None:
    if ended_s.size:
        edges = np.linspace(0, ended_s.max(), _SLICES + 1)
        counts, _ = np.histogram(ended_s, edges)
        axes.stairs(
            counts * payload_bytes * BITS_PER_BYTE / (edges[1] - edges[0]), edges, fill=True, color=_BLUE, alpha=0.35
        )
    axes.set(title="goodput", xlabel="virtual time, s", ylim=(0, None))
    axes.yaxis.set_major_formatter(EngFormatter(unit="bit/s"))


def _distribution(axes: Axes, delay_s: FloatArray) -> None:
    if delay_s.size:
        ordered = np.sort(delay_s)
        axes.step(
            np.concatenate([ordered[:1], ordered]),
            np.arange(ordered.size + 1) / ordered.size,
            where="post",
            color=_BLUE,
        )
        for rank in (50, 95, 99):
            axes.axhline(rank / 100, color=_GREY, linewidth=0.6, linestyle=(0, (2, 3)))
        _delay_scale(axes, delay_s, "x")
    axes.set(title="share of messages at least as fast", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _delay_scale(axes: Axes, delay_s: FloatArray, which: str) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    positive = delay_s[delay_s > 0]
    if positive.size and positive.max() > _LOG_FROM * positive.min():
        axes.set(**{f"{which}scale": "log"})
    else:
        axes.set(**{f"{which}lim": (0, None)})
    axis.set_major_formatter(EngFormatter(unit="s"))
