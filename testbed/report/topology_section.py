"""The report's section on a run's topology: its picture with the load of every edge, and the busiest of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml

from testbed.report import words
from testbed.report.markup import Markup, element, section, table
from testbed.report.topology_picture import topology_svg
from testbed.results.folder import Run
from testbed.scenarios.schema import places
from testbed.scenarios.topology import Topology

_MOST_ROWS = 12
_HEADER = ["edge", "direction", "busy", "carried", "most queued", "dropped", "lost", "failed", "down"]


def topology(run: Run) -> Markup:
    """Nothing where the run had none."""
    summary = run.summary.get("edges")
    scenario = yaml.safe_load(run.scenario_text) if summary is not None else None
    if summary is None or not isinstance(scenario, dict) or not scenario.get("topology"):
        return Markup("")
    shown = Topology.model_validate(scenario["topology"])
    loads = {(row["source"], row["target"]): row["utilisation"] or 0.0 for row in summary["each"]}
    picture = topology_svg(shown, loads=loads, notes=_notes(scenario, shown))
    busiest = sorted(summary["each"], key=lambda row: (-(row["utilisation"] or 0.0), row["source"], row["target"]))
    used = [row for row in busiest if row["carried_bytes"] or row["failed_packets"] or row["dropped_packets"]]
    caption = (
        f"The {_MOST_ROWS} busiest of {len(used)} used directions" if len(used) > _MOST_ROWS else "Used directions"
    )
    note = (
        "Each edge is two lines, one a direction, each on the right of its way. Busy: share of the run spent clocking "
        "bits out. Devices' own links are no edges."
    )
    return section(
        "Topology",
        element("div", picture, class_="wide"),
        table(caption, _HEADER, [_row(row) for row in used[:_MOST_ROWS]], num_text=2),
        note=note,
    )


def _row(row: Mapping[str, Any]) -> list[object]:
    return [
        f"{row['source']} – {row['target']}",
        f"to {row['target']}",
        words.share(row["utilisation"]),
        words.size(row["carried_bytes"]),
        words.size(row["peak_backlog_bytes"]),
        words.number(row["dropped_packets"]),
        words.number(row["lost_packets"]),
        words.number(row["failed_packets"]),
        words.share(row["down_share"]),
    ]


def _notes(scenario: Mapping[str, Any], shown: Topology) -> dict[str, str]:
    """How many devices and servers stand at each node."""
    devices = _counted(scenario.get("fleet") or [], shown)
    servers = _counted(scenario.get("servers") or [], shown)
    told = {}
    for name in sorted({*devices, *servers}):
        counts = ((devices[name], "device"), (servers[name], "server"))
        told[name] = ", ".join(words.plural(count, noun) for count, noun in counts if count)
    return told


def _counted(entries: list[Mapping[str, Any]], shown: Topology) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in entries:
        nodes = places(entry["at"], shown)
        for member in range(entry.get("count", 1)):
            found[nodes[member % len(nodes)]] += 1
    return found
