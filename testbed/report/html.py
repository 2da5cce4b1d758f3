"""report.html: one file that says what a run was and what came of it, made from the run folder alone."""

from __future__ import annotations

from pathlib import Path

from testbed.report import (
    cluster_section,
    device_section,
    network_sections,
    results_sections,
    run_sections,
    topology_section,
)
from testbed.report.markup import Markup, element, join
from testbed.report.style import CSS
from testbed.results import files
from testbed.results.folder import Run, read_run


def write_report(folder: Path) -> Path:
    """Write report.html into the run folder and say where. Raises ScenarioError for a folder that holds no run."""
    file = folder / files.REPORT
    file.write_text(render(read_run(folder)), encoding="utf-8")
    return file


def render(run: Run) -> str:
    """The whole page; it loads nothing from anywhere."""
    parts = [
        run_sections.header(run),
        run_sections.provenance(run),
        results_sections.tiles(run),
        results_sections.outcomes(run),
        results_sections.latencies(run),
        results_sections.hops(run),
        network_sections.traffic(run),
        network_sections.delays(run),
        network_sections.cells(run),
        topology_section.topology(run),
        device_section.devices(run),
        results_sections.servers(run),
        cluster_section.cluster(run),
        results_sections.quality(run),
        run_sections.environment(run),
    ]
    head = join(
        [
            Markup('<meta charset="utf-8">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            element("title", f"{run_sections.scenario_name(run)} · testbed run"),
            element("style", Markup(CSS)),
        ]
    )
    page = element("html", element("head", head), element("body", element("main", *parts)), lang="en")
    return f"<!doctype html>\n{page}\n"
