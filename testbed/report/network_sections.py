"""What a report says of the links: traffic, and how long messages took, over time."""

from __future__ import annotations

from testbed.report import plots, series, words
from testbed.report.markup import Markup, element, join, section, table
from testbed.results import files
from testbed.results.folder import Run, batches

_VIRTUAL = "Virtual time."
_DELAY_COLUMNS = ["direction", "messages", "not delivered", "p50", "p95", "p99", "longest"]


def traffic(run: Run) -> Markup:
    summary = run.summary
    columns = ["end_ns", "direction", "payload_bytes", "wire_bytes"]
    found = series.traffic(batches(run.folder / files.TRANSFERS, columns), summary["duration_s"])
    rows = [
        [direction, words.size(summary[f"bytes_{direction}"]), words.size(summary[f"wire_bytes_{direction}"])]
        for direction in ("up", "down")
    ]
    totals = table("Bytes of the whole run", ["direction", "payload", "on the wire"], rows)
    if summary["encryption"] is not None:
        totals = join([totals, element("p", f"Encryption added, {words.encryption(summary['encryption'])}.")])
    note = f"{_VIRTUAL} Wire bytes hold headers and repeated packets too. "
    if found is None:
        recorded = (run.folder / files.TRANSFERS).exists()
        note += "No message crossed a link." if recorded else "Single messages were not recorded (record.spans is off)."
        return section("Traffic", totals, note=note)
    note += "Filled: payload; line: on the wire; each counted when its message left the link."
    drawn = element("div", plots.traffic_over_time(found, summary["duration_s"]), class_="wide")
    return section("Traffic", drawn, totals, note=note)


def delays(run: Run) -> Markup:
    """How long messages took from handing over to arrival, by when they were handed over."""
    title, duration_s = "Message delay over time", run.summary["duration_s"]
    columns = ["sent_ns", "end_ns", "direction", "delivered"]
    found = series.delays(batches(run.folder / files.TRANSFERS, columns), duration_s)
    if found is None:
        return Markup("")
    rows = [
        [
            direction,
            words.number(one.delay_s.size),
            words.number(int((~one.delivered).sum())),
            *(words.seconds(None if value is None else value) for value in one.percentiles),
        ]
        for direction, one in found.items()
    ]
    drawn = element("div", plots.delay_over_time(found, duration_s), class_="wide")
    note = (
        f"{_VIRTUAL} Each message at the time it was handed to its link. Line: median of a slice; area: up to its 95th "
        "percentile; crosses: messages that were not delivered."
    )
    return section(title, drawn, table("Delay of delivered messages", _DELAY_COLUMNS, rows), note=note)


def cells(run: Run) -> Markup:
    """How the links of each cell shared its air."""
    if not run.summary["cells"]:
        return Markup("")
    rows = [
        [
            entry["cell"],
            entry["direction"],
            words.number(entry["links"]),
            words.share(entry["utilisation"]),
            words.number(entry["contending"]),
            words.size(entry["carried_bytes"]),
        ]
        for entry in run.summary["cells"]
    ]
    columns = ["cell", "direction", "links", "busy", "contending while busy", "carried"]
    note = "Busy: some link of the cell had something to send. Contending: how many had, in the mean over that time."
    return section("Cells", table("Shared air", columns, rows, num_text=2), note=note)
